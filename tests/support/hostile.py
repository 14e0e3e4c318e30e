"""What files may hold that somebody else wrote, drawn by hypothesis; and what is asked of the code that reads them.

In the suite a few cases each; with WSPACE_FUZZ=1 in the environment all of them, as CI asks for, the same each time: a
change is not to fail by what it did not touch. WSPACE_FUZZ=new draws others.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from wspace.support.errors import Renamed, UserError

FUZZ = os.environ.get("WSPACE_FUZZ")
FEW = 25
SLOWEST = timedelta(seconds=5)
MEMORY = 1 << 30  # bytes beyond those of a process at rest


def cases(long: int) -> Callable[[Any], Any]:
    """So many cases in CI, a few in the suite; none of which may take longer than `SLOWEST`."""
    return settings(
        max_examples=long if FUZZ else FEW, deadline=SLOWEST, database=None, derandomize=FUZZ != "new",
        suppress_health_check=[*HealthCheck],
    )  # fmt: skip


_WRITTEN: list[str] | None = None  # paths, while somebody asks


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _WRITTEN is None:
        return
    if (
        event == "open"
        and isinstance(arguments[0], str)
        and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ):
        _WRITTEN.append(arguments[0])
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "shutil.rmtree"):
        _WRITTEN.extend(os.fsdecode(part) for part in arguments[:2] if isinstance(part, str | bytes | Path))


sys.addaudithook(_audit)


@contextmanager
def held(*folders: Path) -> Iterator[None]:
    """What runs inside takes no more memory than `MEMORY`, and writes in these folders alone."""
    global _WRITTEN
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    _WRITTEN = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Renamed)  # a note on the terminal
            yield
        outside = [path for path in _WRITTEN if path != os.devnull
                   and not any(Path(path).absolute().is_relative_to(folder) for folder in folders)]  # fmt: skip
        assert not outside
    finally:
        _WRITTEN = None
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused_or_done(call: Callable[[], Any]) -> Any:
    """What it gives, or None where it ends in a UserError of a sentence; nothing else may come of it."""
    try:
        return call()
    except UserError as error:
        assert str(error).strip()
        return None


# ---------------------------------------------------------------- what is drawn

names = st.text(max_size=12) | st.sampled_from(["", "use", "a.b", "../x", "/etc/passwd", "\0", "\ud800", "x" * 300])
numbers = (
    st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, float("nan"), float("inf"), 1e308])
)  # fmt: skip
scalars = st.none() | st.booleans() | numbers | names
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


@st.composite
def mutated(draw: st.DrawFn, content: bytes, most: int = 6) -> bytes:
    """Some bytes replaced, taken out, doubled, or all that follows cut off."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        what = draw(st.sampled_from(["flip", "set", "take", "double", "cut", "grow"]))
        if not changed:
            break
        if what == "flip":
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "set":
            changed[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B, 0x5B]))
        elif what == "take":
            del changed[place : place + draw(st.integers(1, 8))]
        elif what == "double":
            part = changed[place : place + draw(st.integers(1, 40))]
            changed[place:place] = part * draw(st.integers(1, 3))
        elif what == "cut":
            del changed[place:]
        else:
            changed[place:place] = draw(st.binary(min_size=1, max_size=8))
    return bytes(changed)


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with something in it replaced, added or taken out, a few times."""
    changed = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        node, way = changed, []
        while isinstance(node, dict | list) and node and draw(st.integers(0, 3)):
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else list(range(len(node)))))
            way.append((node, key))
            node = node[key]
        if not way:
            continue
        (inside, key), what = way[-1], draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "replace":
            inside[key] = draw(values)
        elif what == "remove":
            del inside[key]
        elif isinstance(inside, dict):
            inside[draw(names)] = draw(values)
        else:
            inside.insert(draw(st.integers(0, len(inside))), draw(values))
    return changed


def as_json(value: Any) -> str:
    """Also of what json refuses: surrogates alone."""
    return json.dumps(value, ensure_ascii=True)


def safetensors_file(header: Any, data: bytes, length: int | None = None) -> bytes:
    """With any header; `length` is what it says of its own."""
    text = header if isinstance(header, bytes) else as_json(header).encode()
    return struct.pack("<Q", (len(text) if length is None else length) % 2**64) + text + data


shapes = st.lists(st.integers(0, 5) | st.sampled_from([-1, 2**31, 2**62, 2**63, 10**30]), max_size=4)
dtypes = st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X", ""])


@st.composite
def headers(draw: st.DrawFn, called: st.SearchStrategy[str] = names, size: int = 64) -> dict[str, Any]:
    """Of a safetensors file, some of them right."""
    header: dict[str, Any] = {}
    end = 0
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):  # as it should be
            shape = draw(st.lists(st.integers(0, 3), max_size=3))
            length = 4
            for side in shape:
                length *= side
            header[draw(called)] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + length]}
            end += length
        else:
            offsets = draw(st.lists(st.integers(-1, size) | st.sampled_from([2**40, 2**63, 2**64]), max_size=3))
            header[draw(called)] = {"dtype": draw(dtypes), "shape": draw(shapes), "data_offsets": offsets}
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(names, names, max_size=2) | values)
    return header
