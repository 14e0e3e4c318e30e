"""IDX files, and what comes with scikit-learn."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wspace.components.architectures.mlp import MLP
from wspace.components.backbones.pixels import Pixels
from wspace.components.datasets.idx import Idx
from wspace.components.datasets.sklearn import Sklearn
from wspace.interfaces import TEST, TRAIN, VAL
from wspace.support.errors import DataError, MissingPackage

NAMES = ("shirt", "boot", "bag")
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_of(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def labels(*numbers: int) -> bytes:
    return idx_of(np.array(numbers, np.uint8))


def blank(*sides: int) -> bytes:
    return idx_of(np.zeros((12, *sides), np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of 4 x 4 to train on and six to test on, of three classes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 6)):
        pixels = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_of(pixels))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx_of(np.arange(count, dtype=np.uint8) % 3))
    return tmp_path


def test_idx_files_are_pictures_labels_and_splits(folder: Path, tmp_path: Path) -> None:
    images = Idx(folder, NAMES, val=0.25).load(tmp_path)
    assert images.classes == NAMES and len(images) == 18
    assert images.labels.tolist() == [0, 1, 2] * 6
    assert np.bincount(images.split[:12], minlength=3).tolist() == [9, 3, 0] and set(images.split[12:]) == {TEST}
    assert sorted(images.labels[images.split == VAL]) == [0, 1, 2]
    raw = np.frombuffer((folder / IMAGES).read_bytes()[16:], np.uint8).reshape(12, 4, 4)
    assert (images.read([3, 0]) == raw[[3, 0]][..., None]).all() and images.read([]).shape == (0, 4, 4, 3)


def test_gzipped_files_with_dots_in_their_names_are_the_same(folder: Path, tmp_path: Path) -> None:
    plain = Idx(folder, NAMES).load(tmp_path)
    for file in list(folder.glob("*ubyte")):
        file.with_name(file.name.replace("-idx", ".idx") + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    zipped = Idx(folder, NAMES).load(tmp_path)
    assert (zipped.read(range(18)) == plain.read(range(18))).all() and (zipped.split == plain.split).all()


BEGINS = "its magic number is 0x{}, where 0x0000080{} begins an IDX file of bytes with"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (IMAGES, lambda b: b"\0\0\x0d\x03" + b[4:], f"{{file}}: {BEGINS.format('00000d03', 3)} 3 dimensions"),
        (LABELS, lambda b: b"P5\n4" + b[4:], f"{{file}}: {BEGINS.format('50350a34', 1)} 1 dimension"),
        (IMAGES, lambda b: b[:2], f"{{file}}: {BEGINS.format('0000', 3)} 3 dimensions"),
        (IMAGES, lambda b: b[:-5], "{file}: truncated: it holds 203 bytes, fewer than its header says"),
        (IMAGES, lambda b: b[:9], "{file}: truncated: it holds 9 bytes, fewer than its header says"),
        (IMAGES, lambda b: b + b"12", "{file}: holds 2 bytes more than its header says"),
        (LABELS, lambda b: labels(*[0] * 11), "{file}: has 11 labels, and train-images-idx3-ubyte 12 pictures"),
        (LABELS, lambda b: labels(*[7] * 12), "{file}: has the label 7, and dataset.classes names 3, 0 to 2"),
        (LABELS, lambda b: labels(*[0, 1] * 6), "{file}: class 'bag' has 0 of its pictures, and 2 are the least"),
        (IMAGES, lambda b: blank(4, 5), "{file}: its pictures are 4 x 5, and square ones are needed"),
        (
            IMAGES,
            lambda b: blank(5, 5),
            "{folder}/t10k-images-idx3-ubyte: has pictures of 4 x 4, where those to train on are 5 x 5",
        ),
    ],
)
def test_a_broken_file_is_one_sentence(folder: Path, tmp_path: Path, name: str, change: object, message: str) -> None:
    file = folder / name
    file.write_bytes(change(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        Idx(folder, NAMES).load(tmp_path)
    assert str(caught.value) == message.format(file=file, folder=folder) and caught.value.exit_status == 2


@pytest.mark.parametrize("content", [gzip.compress(blank(4, 4))[:-9], b"no gzip at all"], ids=["truncated", "no gzip"])
def test_a_broken_gzip_file_is_one_sentence(folder: Path, tmp_path: Path, content: bytes) -> None:
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{folder}/{IMAGES}.gz: truncated, or no gzip file: "):
        Idx(folder, NAMES).load(tmp_path)


def test_a_folder_without_the_files_or_with_two_sets_of_them(folder: Path, tmp_path: Path) -> None:
    (folder / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="could both be meant: keep each data set in a folder$"):
        Idx(folder, NAMES).load(tmp_path)
    (folder / LABELS).unlink()
    (folder / "emnist-letters-train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=f"has no file of labels such as {LABELS} or {LABELS}.gz$"):
        Idx(folder, NAMES).load(tmp_path)
    with pytest.raises(DataError, match=r"nowhere: cannot be read: No such file or directory$"):
        Idx(tmp_path / "nowhere", NAMES).load(tmp_path)
    with pytest.raises(DataError, match="classes: 'a' is named twice"):
        Idx(folder, ("a", "b", "a"))


def test_digits_are_tested_on_other_hands(tmp_path: Path) -> None:
    images = Sklearn().load(tmp_path)
    assert len(images) == 1797 and images.classes[7] == "seven" and images.read([0]).shape == (1, 8, 8, 3)
    assert (images.split[-449:] == TEST).all() and TEST not in images.split[:-449]
    assert images.read([0]).max() > 200 and images.read([0]).min() == 0


def test_the_measures_of_iris_come_back_as_features(tmp_path: Path) -> None:
    from sklearn.datasets import load_iris

    images = Sklearn("iris").load(tmp_path)
    assert images.classes == ("setosa", "versicolor", "virginica")
    for split in (TRAIN, VAL, TEST):
        assert len(set(np.bincount(images.labels[images.split == split]).tolist())) == 1
    features = Pixels(2, grey=True, device=torch.device("cpu")).encode(images.read(range(150))).double()
    measures = torch.as_tensor(np.asarray(load_iris().data))
    kept = torch.as_tensor(images.split != TEST)
    for mine, theirs in zip(features[kept].T, measures[kept].T, strict=True):
        assert torch.corrcoef(torch.stack([mine, theirs]))[0, 1] > 0.9999


def test_scikit_learn_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingPackage, match=r"needs scikit-learn: pip install \"wspace\[bench\]\""):
        Sklearn().load(tmp_path)


def test_grey_pixels_are_a_third_as_many_and_the_mean_of_colours() -> None:
    device, pictures = torch.device("cpu"), np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    colours, grey = Pixels(4, device=device), Pixels(4, grey=True, device=device)
    assert (grey.dim, colours.dim) == (16, 48) and grey.fingerprint != colours.fingerprint
    torch.testing.assert_close(grey.encode(pictures), colours.encode(pictures).unflatten(1, (3, 16)).mean(1))
    torch.testing.assert_close(grey.module()(torch.as_tensor(pictures)), grey.encode(pictures))


def test_a_perceptron_may_do_without_biases() -> None:
    assert sum(p.numel() for p in MLP((32, 32), bias=False).build((784,), 10).parameters()) == 26432
