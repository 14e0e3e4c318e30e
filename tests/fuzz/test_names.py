"""Names of classes that anybody may have written."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.hostile import cases, held, names, refused_or_done
from wspace.support.cards import escaped
from wspace.support.classes import check_classes, classes_of
from wspace.support.errors import nearest


@cases(15_000)
@given(st.lists(names | st.text(max_size=40), max_size=6))
@example(["a"] * 20_000)
@example([str(number) for number in range(20_000)])
@example(["x" * 1_000_000, "y"])
def test_classes_are_a_task_or_refused(given: list[str]) -> None:
    with held():
        for call in (lambda: check_classes(given), lambda: classes_of(",".join(given))):
            classes = refused_or_done(call)
            if classes is not None:
                assert len(classes) > 1 and len(set(classes)) == len(classes) and all(classes)
                nearest(classes[0][:100], [name[:100] for name in classes[1:10]])
                assert "<" not in escaped(classes[0][:1000])
