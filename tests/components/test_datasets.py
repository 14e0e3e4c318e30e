"""The built-in data sets: icons and folders of pictures."""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from wspace.components.datasets import icons as icons_module
from wspace.components.datasets.folder import Folder
from wspace.components.datasets.icons import STYLES, Icons, styles_with, words_of
from wspace.data.labelled import READER
from wspace.data.pictures import MOST_PIXELS, open_picture
from wspace.interfaces import TEST, TRAIN, VAL, Images
from wspace.support import fingerprint
from wspace.support.errors import DataError, DiskError, MissingPackage


def everything(images: Images) -> np.ndarray:
    return images.read(np.arange(len(images)))


def assert_consistent(images: Images, size: int) -> None:
    assert images.labels.dtype == np.int64 and images.split.dtype == np.int8
    assert images.labels.shape == images.split.shape == (len(images),)
    assert set(images.labels) == set(range(len(images.classes)))
    assert images.read([0]).shape == (1, size, size, 3) and images.read([0]).dtype == np.uint8
    assert images.read([]).shape == (0, size, size, 3)


# ---------------------------------------------------------------- icons


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def all_icons(cache: Path) -> Images:
    return Icons(renderings=1).load(cache)


@pytest.mark.slow
def test_icons_have_at_least_200_concepts_of_7_styles(all_icons: Images) -> None:
    assert_consistent(all_icons, 96)
    assert len(all_icons.classes) >= 200
    assert np.bincount(all_icons.labels).min() >= 7
    assert len(set(all_icons.classes)) == len(all_icons.classes)
    assert {"anchor", "umbrella", "shopping cart", "thumbs up"} <= set(all_icons.classes)
    assert not any(len(word) == 1 or not word.isalpha() for name in all_icons.classes for word in name.split())
    assert len(STYLES) == len({style.name for style in STYLES}) == 17
    assert len(styles_with(())) == 15


@pytest.mark.slow
def test_icons_of_every_class_can_be_trained_on_and_tested(all_icons: Images) -> None:
    train, val, test = (
        np.bincount(all_icons.labels[all_icons.split == split], minlength=len(all_icons.classes))
        for split in (TRAIN, VAL, TEST)
    )
    assert train.min() >= 3 and test.min() >= 1
    assert (val > 0).mean() > 0.8


def test_icons_hold_whole_styles_out() -> None:
    held_out = {style.name for style in STYLES if style.split == TEST}
    assert held_out == {"lucide", "material icons filled", "remix fill", "boxicons regular", "fluent filled"}
    assert {style.name for style in STYLES if style.split == VAL} == {
        "material design outline",
        "phosphor fill",
    }


def test_icons_of_a_held_out_style_are_in_its_split_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each style is rendered as a grey that tells which it is: the split can be read off the pixels."""
    monkeypatch.setattr(Icons, "_render", lambda self, concept, style, rendering: np.full((16, 16, 3), style, np.uint8))
    images = Icons(size=16, renderings=2, concepts=40).load(tmp_path)
    styles = everything(images)[:, 0, 0, 0]
    assert [STYLES[style].split for style in styles] == images.split.tolist()
    assert {STYLES[style].split for style in styles} == {TRAIN, VAL, TEST}
    by_class = [set(zip(styles[images.labels == k], images.split[images.labels == k], strict=True)) for k in (0, 1)]
    assert [len(pairs) * 2 for pairs in by_class] == np.bincount(images.labels)[:2].tolist()


@pytest.mark.slow
def test_icons_are_not_blank_and_differ(all_icons: Images) -> None:
    pixels = everything(all_icons).astype(np.float32)
    assert pixels.std(axis=(1, 2)).max(axis=1).min() > 15
    flat = pixels[:, ::8, ::8].astype(np.uint8).reshape(len(pixels), -1)
    assert len(np.unique(flat, axis=0)) == len(flat)


def test_icons_are_the_same_bytes_when_rendered_again(tmp_path: Path) -> None:
    first = Icons(size=32, concepts=5, renderings=2).load(tmp_path / "a")
    again = Icons(size=32, concepts=5, renderings=2).load(tmp_path / "b")
    other = Icons(size=32, concepts=5, renderings=2, seed=-1).load(tmp_path / "b")
    assert np.array_equal(everything(first), everything(again)) and first.fingerprint == again.fingerprint
    assert not np.array_equal(everything(first), everything(other))
    assert first.fingerprint != other.fingerprint


@pytest.mark.slow
def test_icons_of_fewer_concepts_are_identical_pictures(all_icons: Images, cache: Path) -> None:
    few = Icons(renderings=1, concepts=6).load(cache)
    assert len(few.classes) == 6 and few.classes == tuple(sorted(few.classes))
    drawn = np.bincount(all_icons.labels)
    assert min(np.bincount(few.labels)) >= sorted(drawn)[-6]
    for k, name in enumerate(few.classes):
        mine = np.flatnonzero(few.labels == k)
        theirs = np.flatnonzero(all_icons.labels == all_icons.classes.index(name))
        assert np.array_equal(few.read(mine), all_icons.read(theirs))
        assert np.array_equal(few.split[mine], all_icons.split[theirs])


def test_icons_with_more_renderings_keep_the_first(tmp_path: Path) -> None:
    one = Icons(size=32, concepts=3, renderings=1).load(tmp_path)
    three = Icons(size=32, concepts=3, renderings=3).load(tmp_path)
    assert np.array_equal(everything(one), everything(three)[::3])
    assert not np.array_equal(everything(three)[0], everything(three)[1])


def test_icons_are_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Icons(size=32, concepts=5, renderings=2)
    before = everything(dataset.load(tmp_path))
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    rendered = []
    render = Icons._render

    def counted(self: Icons, *arguments: object) -> np.ndarray:
        rendered.append(arguments)
        return render(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Icons, "_render", counted)
    assert np.array_equal(everything(dataset.load(tmp_path)), before)
    assert file.stat().st_mtime_ns == written and len(rendered) <= 3
    assert list(tmp_path.iterdir()) == [file]


def truncate(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


def zero_the_end(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(-5000, os.SEEK_END)
        stream.write(bytes(5000))


def another_shape(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.zeros((3, 4), np.uint8))


@pytest.mark.parametrize(
    "damage", [truncate, zero_the_end, another_shape, lambda file: file.write_text("no array"), Path.unlink]
)
def test_a_damaged_cache_is_rendered_anew(tmp_path: Path, damage) -> None:
    dataset = Icons(size=32, concepts=3, renderings=2)
    before = everything(dataset.load(tmp_path))
    (file,) = tmp_path.iterdir()
    damage(file)
    assert np.array_equal(everything(dataset.load(tmp_path)), before)
    assert list(tmp_path.iterdir()) == [file]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"file/icons-\w+\.npy: cannot be written: (Not a directory|File exists)$"):
        Icons(size=32, concepts=2, renderings=1).load(tmp_path / "file")


def test_interrupted_rendering_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(Icons, "_render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Icons(size=32, concepts=2, renderings=1).load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_icons_without_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    icons_module.concepts_drawn_in.cache_clear()
    icons_module._spelt.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage) as caught:
        Icons(concepts=2).load(tmp_path)
    assert str(caught.value) == (
        "dataset 'icons' needs the packages qtawesome and iconipy: pip install \"wspace[embedded]\""
    )


@pytest.mark.slow
def test_further_icons_are_there_where_they_are_asked_for(tmp_path: Path) -> None:
    few, more = (
        {frozenset(concept.name.split()): set(concept.glyphs) for concept in icons_module.concepts_drawn_in(11, also)}
        for also in ((), ("fluent",))
    )
    further = {i for i, style in enumerate(STYLES) if style.further == "fluent"}
    assert len(more) > len(few) and not any(styles & further for styles in few.values())
    assert all(more[words] - further == styles for words, styles in few.items())
    plain, with_fluent = (
        Icons(size=16, styles=11, renderings=1, also=also).load(tmp_path) for also in ((), ("fluent",))
    )
    assert len(with_fluent.classes) > len(plain.classes)
    assert plain.fingerprint != with_fluent.fingerprint


def test_further_icons_without_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    icons_module.concepts_drawn_in.cache_clear()
    icons_module._spelt.cache_clear()
    spec_of = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tkinter_icons_fluent" else spec_of(name)
    )
    assert len(Icons(size=16, styles=12, renderings=1).load(tmp_path).classes) > 2
    with pytest.raises(MissingPackage) as caught:
        Icons(styles=12, also=("fluent",)).load(tmp_path)
    assert (
        str(caught.value) == "dataset 'icons' needs the package tkinter-icons-fluent: pip install \"wspace[embedded]\""
    )


def test_icons_asked_for_too_much(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        Icons(styles=16).load(tmp_path)
    assert str(caught.value) == (
        "dataset 'icons' has 0 concepts drawn in at least 16 of its 15 styles, and at least 2 are needed: "
        "lower 'styles'"
    )
    images = Icons(size=16, styles=13, renderings=1, concepts=500).load(tmp_path)
    assert images.warnings == (f"dataset 'icons' has {len(images.classes)} concepts in 13 styles or more, not 500",)


@pytest.mark.parametrize(
    ("style", "glyph", "words"),
    [
        ("material design outline", "bell-outline", ("bell",)),
        ("material design", "bell-outline", None),
        ("material design", "numeric-1-box", None),
        ("material design", "alpha-a", None),
        ("phosphor fill", "shopping-cart-fill", ("shopping", "cart")),
        ("phosphor bold", "shopping-cart-fill", None),
        ("remix line", "map-pin-2-line", ("map", "pin")),
        ("elusive", "address-book-alt", ("address", "book")),
        ("boxicons regular", "bxs-bell", None),
        ("boxicons solid", "bxs-bell", ("bell",)),
        ("lineicons", "lni-bell-1", ("bell",)),
        ("material icons filled", "qr_code", ("qr", "code")),
        ("typicons", "typcn-anchor-outline", ("anchor",)),
        ("fluent regular", "ic-fluent-food-cake-24-regular", ("food", "cake")),
        ("fluent filled", "ic-fluent-food-cake-24-regular", None),
    ],
)
def test_concepts_of_glyph_names(style: str, glyph: str, words: tuple[str, ...] | None) -> None:
    (pattern,) = (s.pattern for s in STYLES if s.name == style)
    assert words_of(glyph, pattern) == words


def test_one_concept_in_either_order_of_words() -> None:
    """Lucide says circle-check, Boxicons says check-circle."""
    names = [concept.name for concept in icons_module.concepts_drawn_in(7)]
    assert len({tuple(sorted(name.split())) for name in names}) == len(names)
    (check,) = (c for c in icons_module.concepts_drawn_in(7) if set(c.name.split()) == {"check", "circle"})
    assert {"lucide", "boxicons regular"} <= {STYLES[style].name for style in check.glyphs}


def test_a_glyph_the_font_lacks_is_no_drawing() -> None:
    for style in range(len(STYLES)):
        assert icons_module.glyph(style, 0x1F9FF, 32) is None
        assert icons_module.glyph(style, 0x20, 32) is None


@pytest.mark.slow
def test_icons_import_no_icon_package() -> None:
    program = (
        "import sys; from wspace.components.datasets.icons import concepts_drawn_in; assert concepts_drawn_in(12, ('fluent',));"
        "print([name for name in ('qtawesome', 'iconipy', 'tkinter_icons_fluent') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---------------------------------------------------------------- folders


def paint(path: Path, colour: tuple[int, int, int] | None = None) -> None:
    """A picture of one colour, which follows from the path if it is not given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = zlib.crc32(str(path).encode())
    own = (tone & 255, tone >> 8 & 255, tone >> 16 & 255)
    Image.new("RGB", (24, 20), colour or own).save(path)


def paint_classes(root: Path, *names: str, count: int = 10) -> Path:
    for name in names:
        for i in range(count):
            paint(root / name / f"{i}.png")
    return root


def load(root: Path, **options: float) -> Images:
    images = Folder(root, 16, **options).load(root.parent / "cache")  # type: ignore[arg-type]
    assert_consistent(images, 16)
    return images


def error_of(root: Path, **options: float) -> str:
    with pytest.raises(DataError) as caught:
        load(root, **options)
    return str(caught.value)


def splits_by_class(images: Images) -> dict[str, list[int]]:
    return {
        name: np.bincount(images.split[images.labels == k], minlength=3).tolist()
        for k, name in enumerate(images.classes)
    }


def test_folder_is_split_by_hash(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog", count=20)
    paint_classes(root, "rare", count=3)
    images = load(root)
    assert images.classes == ("cat", "dog", "rare") and images.warnings == ()
    assert splits_by_class(images) == {"cat": [12, 3, 5], "dog": [12, 3, 5], "rare": [1, 1, 1]}
    assert splits_by_class(load(root, test=0.9, val=0.05)) == {
        "cat": [1, 1, 18],
        "dog": [1, 1, 18],
        "rare": [1, 1, 1],
    }
    cat = images.split[images.labels == 0].tolist()
    assert cat != sorted(cat) and cat != images.split[images.labels == 1].tolist()


def test_folder_reads_its_own_pictures(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for i in range(4):
        paint(root / "dark" / f"{i}.bmp", (i, 0, 0))
        paint(root / "light" / "deep" / "er" / f"{i}.WEBP", (255, 255, 250))
        paint(root / "light" / f"{i}.JPeG", (255, 255, 255))
    images = load(root)
    pixels = everything(images)
    assert np.array_equal(pixels[images.labels == 0][:, 3, 5, 0], [0, 1, 2, 3])
    assert len(pixels[images.labels == 1]) == 8 and pixels[images.labels == 1].min() >= 245
    assert np.array_equal(images.read([3, 1]), pixels[[3, 1]])


def test_folder_with_splits_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, red, count in (("train", 10, 5), ("val", 20, 2), ("test", 30, 3)):
        for name in ("cat", "dog"):
            for i in range(count):
                paint(root / split / name / f"{i}.png", (red, i, 0))
    paint(root / "annotations" / "0.png")
    images = load(root)
    assert images.classes == ("cat", "dog")
    assert splits_by_class(images) == {"cat": [5, 2, 3], "dog": [5, 2, 3]}
    red = everything(images)[:, 0, 0, 0]
    assert {int(s): set(red[images.split == s].tolist()) for s in (TRAIN, VAL, TEST)} == {
        TRAIN: {10},
        VAL: {20},
        TEST: {30},
    }


def test_folder_without_val_takes_it_from_train(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, count in (("train", 20), ("test", 4)):
        paint_classes(root / split, "cat", "dog", count=count)
    assert splits_by_class(load(root)) == {"cat": [17, 3, 4], "dog": [17, 3, 4]}
    assert splits_by_class(load(root, val=0.5)) == {"cat": [10, 10, 4], "dog": [10, 10, 4]}


def test_a_file_elsewhere_moves_no_picture(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog", count=12)
    before = load(root)
    assert load(root).fingerprint == before.fingerprint
    paint(root / "dog" / "another.png")
    paint(root / "bird" / "0.png")
    paint_classes(root, "bird", count=3)
    after = load(root)
    mine, theirs = (images.split[images.labels == images.classes.index("cat")] for images in (before, after))
    assert np.array_equal(mine, theirs)
    assert after.fingerprint != before.fingerprint


def test_fingerprint_of_a_folder_changes_with_pixels_and_split(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog")
    first = load(root)
    assert load(root, test=0.5).fingerprint != first.fingerprint
    assert Folder(root, 17).load(tmp_path / "cache").fingerprint != first.fingerprint
    paint(root / "cat" / "0.png", (1, 2, 3))
    changed = load(root)
    assert changed.fingerprint != first.fingerprint
    assert changed.read([0])[0, 0, 0].tolist() == [1, 2, 3]


def test_what_was_made_before_from_large_pictures_is_valid(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog", count=4)
    assert load(root).former_fingerprints == (load(root).fingerprint,), "of small pictures nothing changed"
    noise = np.random.default_rng(0).integers(0, 255, (120, 120, 3), np.uint8)
    Image.fromarray(noise).save(root / "cat" / "0.png")
    images = load(root)
    names = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)]
    contents = [[name, fingerprint.of_ends(root / name)] for name in names]
    before = fingerprint.of_json([READER, PIL.__version__, 16, contents])
    rows = [images.labels.tolist(), images.split.tolist(), list(range(8))]
    assert images.former_fingerprints == (fingerprint.of_json([before, ["cat", "dog"], *rows]),)
    assert images.fingerprint not in images.former_fingerprints
    with (root / "cat" / "0.png").open("r+b") as stream:
        stream.seek(20_000)
        stream.write(b"broken")
    changed = load(root)
    assert changed.fingerprint != images.fingerprint and len(changed.warnings) == 1


def test_folder_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog")
    (root / "cat" / "broken.png").write_bytes(b"broken")
    before = load(root)
    pixels = everything(before)
    opened = []

    def counted(path: Path, size: int, most_pixels: int) -> np.ndarray:
        opened.append(path)
        return open_picture(path, size, most_pixels)

    monkeypatch.setattr("wspace.components.datasets.folder.open_picture", counted)
    again = load(root, test=0.4)
    assert len(opened) <= 3
    assert np.array_equal(everything(again), pixels) and again.warnings == before.warnings != ()
    for file in (tmp_path / "cache").glob("*.json"):
        file.write_text("[")
    assert load(root).warnings == before.warnings
    for file in (tmp_path / "cache").glob("*.npy"):
        truncate(file)
        file.with_suffix(".json").write_text("[]")
    anew = load(root)
    assert np.array_equal(everything(anew), pixels) and anew.warnings == before.warnings


def test_odd_names(tmp_path: Path) -> None:
    root = paint_classes(
        tmp_path / "my data ü", " red_-panda ", "cafe\u0301", "日本 語", "50% off'\"", ".hidden", count=4
    )
    paint(root / "日本 語" / ".hidden.png")
    paint(root / "日本 語" / ".thumbnails" / "0.png")
    (root / "日本 語" / "notes.txt").write_text("")
    (root / "README.md").write_text("")
    images = load(root)
    assert images.classes == ("50% off'\"", "caf\u00e9", "red panda", "日本 語")
    assert np.bincount(images.labels).tolist() == [4, 4, 4, 4]


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    assert error_of(tmp_path / "nowhere") == f"{tmp_path}/nowhere: no such folder"


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert error_of(tmp_path / "file") == f"{tmp_path}/file: is a file, not a folder"


def test_folder_of_too_few_classes(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    assert error_of(root) == f"{root}: has no classes (sub-folders of pictures), and at least 2 are needed"
    paint_classes(root, "cat")
    assert error_of(root) == f"{root}: has 1 class (sub-folders of pictures), and at least 2 are needed"


def test_class_without_pictures(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "dog", "cow")
    (root / "cat").mkdir()
    (root / "cat" / "x.txt").write_text("")
    assert error_of(root) == (
        f"{root}: class 'cat' has no pictures; 1 file (1 .txt) is no picture by its name and is left out: cat/x.txt"
    )


@pytest.mark.parametrize(("count", "pictures"), [(1, "1 picture"), (2, "2 pictures")])
def test_class_of_too_few_pictures(tmp_path: Path, count: int, pictures: str) -> None:
    root = paint_classes(tmp_path / "data", "dog")
    paint_classes(root, "cat", count=count)
    assert error_of(root) == (
        f"{root}: class 'cat' has {pictures}, and at least 3 are needed: "
        "one each to train on, to choose on and to test on"
    )


def test_class_missing_from_a_split(tmp_path: Path) -> None:
    root = tmp_path / "data"
    paint_classes(root / "train", "cat", "dog", "cow")
    paint_classes(root / "test", "cat", "dog")
    assert error_of(root) == f"{root}: class 'cow' has no pictures in test/"
    paint_classes(root / "test", "cow", "ant")
    assert error_of(root) == f"{root}: class 'ant' has no pictures in train/"


def test_train_without_test(tmp_path: Path) -> None:
    root = tmp_path / "data"
    paint_classes(root / "train", "cat", "dog")
    paint_classes(root / "val", "cat", "dog")
    assert error_of(root) == f"{root}: has train/ and val/ but no test/"


def test_two_folders_of_one_class(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "red-panda", "red_panda", "cat")
    assert error_of(root) == f"{root}: folders 'red-panda' and 'red_panda' give the same class name 'red panda'"


def test_folder_name_without_a_class_name(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "_-_", "cat")
    assert error_of(root) == f"{root}/_-_: no class name is left of this folder's name"


def test_shares_that_leave_nothing(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "dog", "cat")
    assert error_of(root, test=0.5, val=0.5) == "test 0.5 and val 0.5 together leave no picture to train on"


# ---------------------------------------------------------------- pictures that cannot be read


def bomb(path: Path) -> None:
    """A small PNG that says it is 20,000 x 20,000."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(99)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b""))


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path.with_suffix(".jpg"))
    path.write_bytes(path.with_suffix(".jpg").read_bytes()[:2000])
    path.with_suffix(".jpg").unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not a picture")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (bomb, "too large, 400,000,000 pixels, where 89,478,485 are allowed: make it smaller, or raise 'dataset.most_pixels'"),
        (truncated, "image file is truncated (146 bytes not processed)"),
        (empty, "cannot identify image file"),
        (text, "cannot identify image file"),
        (dangling, "there is no such file"),
        (os.mkfifo, "it is no file"),
    ],
)  # fmt: skip
def test_unreadable_pictures_are_skipped_and_said_with_the_reason(tmp_path: Path, spoil, reason: str) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog")
    whole = load(root)
    spoil(root / "cat" / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = load(root)
    assert images.warnings == (f"1 of 21 pictures cannot be read and is skipped: cat/x.png: {reason}",)
    assert np.array_equal(everything(images), everything(whole))
    assert images.labels.tolist() == whole.labels.tolist() and images.split.tolist() == whole.split.tolist()


def test_a_picture_of_too_many_pixels_is_read_once_that_is_allowed(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog")
    Image.new("1", (10_000, 10_000)).save(root / "cat" / "x.png")
    assert load(root).warnings == (
        "1 of 21 pictures cannot be read and is skipped: cat/x.png: too large, 100,000,000 pixels, where "
        "89,478,485 are allowed: make it smaller, or raise 'dataset.most_pixels'",
    )
    images = load(root, most_pixels=100_000_000)
    assert images.warnings == () and len(images) == 21
    with pytest.raises(DataError, match="0.png: cannot be read as a picture: too large, 480 pixels"):
        open_picture(root / "cat" / "0.png", 16, 479)
    assert Image.MAX_IMAGE_PIXELS == MOST_PIXELS, "Pillow's own limit is as it was"


def test_unreadable_pictures_are_counted(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog")
    for name in ("cat/5x.png", "dog/0.png", "dog/9.png"):
        text(root / name)
    images = load(root)
    assert images.warnings == (
        "3 of 21 pictures cannot be read and are skipped, the first: cat/5x.png: cannot identify image file",
    )
    assert splits_by_class(images) == {"cat": [6, 2, 2], "dog": [5, 1, 2]}
    assert everything(images).max(axis=(1, 2, 3)).min() > 0


def test_a_class_of_unreadable_pictures(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog", count=3)
    for i in range(3):
        text(root / "cat" / f"{i}.png")
    first = "the first: cat/0.png: cannot identify image file"
    assert error_of(root) == f"{root}: class 'cat' has no picture that can be read, {first}"
    for i in range(3):
        text(root / "dog" / f"{i}.png")
    assert error_of(root) == f"{root}: none of the 6 pictures can be read, {first}"
    assert error_of(root) == f"{root}: none of the 6 pictures can be read, {first}"


def test_a_class_of_too_few_readable_pictures(tmp_path: Path) -> None:
    root = paint_classes(tmp_path / "data", "cat", "dog", count=3)
    text(root / "cat" / "1.png")
    assert error_of(root) == (
        f"{root}: class 'cat' has 2 pictures that can be read, and at least 3 are needed: "
        "one each to train on, to choose on and to test on"
    )


def test_a_split_of_unreadable_pictures(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split in ("train", "test"):
        paint_classes(root / split, "cat", "dog", count=2)
    for i in range(2):
        text(root / "test" / "dog" / f"{i}.png")
    assert error_of(root) == f"{root}: class 'dog' has no pictures that can be read in test/"


# ---------------------------------------------------------------- one picture


@pytest.mark.parametrize("dataset", [Icons(size=20), Folder(Path("any"), size=20)])
def test_open_picture(tmp_path: Path, dataset: Icons | Folder) -> None:
    path = tmp_path / "a.png"
    clear = Image.new("RGBA", (60, 30), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (30, 0, 60, 30))
    clear.save(path)
    pixels = dataset.open_picture(path)
    assert pixels.shape == (20, 20, 3) and pixels.dtype == np.uint8
    assert pixels[10, 2].tolist() == [255, 255, 255] and pixels[10, 17].tolist() == [255, 0, 0]
    text(tmp_path / "text.png")
    for name, reason in (
        ("missing.png", "there is no such file"),
        ("text.png", "cannot identify image file"),
        (".", "it is no file"),
    ):
        with pytest.raises(DataError) as caught:
            dataset.open_picture(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: cannot be read as a picture: {reason}"


def test_pictures_of_every_mode(tmp_path: Path) -> None:
    for mode, colour in (("1", 1), ("L", 200), ("P", 3), ("LA", (200, 255)), ("CMYK", (0, 0, 0, 55))):
        Image.new(mode, (18, 18), colour).save(tmp_path / f"{mode}.tiff")  # type: ignore[arg-type]
        assert open_picture(tmp_path / f"{mode}.tiff", 16).shape == (16, 16, 3)
    assert open_picture(tmp_path / "LA.tiff", 16)[0, 0].tolist() == [200, 200, 200]
    Image.fromarray(np.full((18, 18), 40_000, np.uint16)).save(tmp_path / "deep.png")
    assert open_picture(tmp_path / "deep.png", 16)[0, 0].tolist() == [156, 156, 156]


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 40), "black")
    image.paste("white", (0, 0, 40, 20))
    orientation = Image.Exif()
    orientation[0x0112] = 3
    image.save(tmp_path / "upside_down.jpg", exif=orientation)
    pixels = open_picture(tmp_path / "upside_down.jpg", 16)
    assert pixels[2].max() < 30 and pixels[13].min() > 225


# ---------------------------------------------------------------- fingerprints


def test_fingerprint_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    seen = set()
    for contents in (b"", b"a", b"a" * 100_000, b"a" * 100_001, b"b" + b"a" * 99_999, b"a" * 99_999 + b"b"):
        file.write_bytes(contents)
        seen.add(fingerprint.of_file(file))
    assert len(seen) == 6 and all(len(digest) == 64 for digest in seen)


def test_fingerprint_of_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a").write_text("1")
    first = fingerprint.of_folder(root)
    root.rename(tmp_path / "moved")
    assert fingerprint.of_folder(tmp_path / "moved") == first
    (tmp_path / "moved" / "in" / "a").rename(tmp_path / "moved" / "in" / "b")
    assert fingerprint.of_folder(tmp_path / "moved") != first
    with pytest.raises(OSError, match="not a folder"):
        fingerprint.of_folder(root)


def test_fingerprint_of_values() -> None:
    assert fingerprint.of_json({"a": 1, "b": (2.5, None)}) == fingerprint.of_json({"b": [2.5, None], "a": 1})
    assert len({fingerprint.of_json(value) for value in (1, 1.0, "1", True, [1], {"1": 1}, None)}) == 7
    for unknown in (Path("a"), {1, 2}, {1: 2}, [{"a": {None: 1}}], np.int64(1)):
        with pytest.raises(TypeError):
            fingerprint.of_json(unknown)


def test_fingerprints_need_neither_torch_nor_numpy() -> None:
    program = "import sys, wspace.support.fingerprint; print([n for n in ('torch', 'numpy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
