"""Icons: concepts as up to 17 icon fonts draw them, from the fonts in qtawesome, iconipy and tkinter-icons-fluent."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import PIL
import torch
from annotated_types import Ge
from PIL import Image, ImageDraw, ImageFont, ImageOps, features

from wspace.data.pictures import StoredImages, open_picture, stored_pixels
from wspace.interfaces import TEST, TRAIN, VAL, Dataset, Images
from wspace.support import fingerprint
from wspace.support.errors import DataError, MissingPackage
from wspace.support.parameters import Since
from wspace.support.quantities import counted

RENDERER = 1
"""Raise it when a change here changes a pixel."""

# ---------------------------------------------------------------- fonts and their tables of names


def _from_json(text: str) -> dict[str, int]:
    """{"anchor": "0xf13d"}, {"anchor": "f13d"}, {"lni-anchor": 59905} or {"anchor": {"encodedCode": "\\\\e589"}}."""
    codes = {}
    for name, code in json.loads(text).items():
        code = code["encodedCode"].removeprefix("\\") if isinstance(code, dict) else code
        codes[name] = code if isinstance(code, int) else int(code, 16)
    return codes


def _from_css(text: str) -> dict[str, int]:
    """.typcn-anchor:before { content: "\\e003"; }"""
    rules = re.findall(r'\.([\w-]+):before\s*\{\s*content:\s*"\\([0-9a-f]+)"', text)
    return {name: int(code, 16) for name, code in rules}


def _from_lines(text: str) -> dict[str, int]:
    """anchor f1cd"""
    return {name: int(code, 16) for name, code in (line.split() for line in text.splitlines())}


@dataclass(frozen=True)
class Font:
    package: str
    file: str  # in the package's folder, as is `table`; * stands for a version
    table: str
    read: Callable[[str], dict[str, int]]

    @property
    def path(self) -> Path:
        return _packaged(self.package, self.file)

    def codes(self) -> dict[str, int]:
        """Glyph name -> code point."""
        return self.read(_packaged(self.package, self.table).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Style:
    name: str
    font: Font
    pattern: str  # of the glyph names of this style; the group is what is drawn
    split: int = TRAIN
    further: str | None = None  # what `also` calls it; None: it is always there


INSTALL = 'pip install "wspace[embedded]"'


FLUENT = "tkinter_icons_fluent"


def _packaged(package: str, pattern: str) -> Path:
    """A file of an installed package. It is not imported: qtawesome would want Qt. Raises MissingPackage."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        needed = "the package tkinter-icons-fluent" if package == FLUENT else "the packages qtawesome and iconipy"
        raise MissingPackage(f"dataset 'icons' needs {needed}: {INSTALL}")
    files = sorted(Path(spec.origin).parent.glob(pattern))
    if not files:
        raise MissingPackage(f"dataset 'icons' needs another version of {package}, one with {pattern}: {INSTALL}")
    return files[-1]


def _qtawesome(name: str) -> Font:
    return Font("qtawesome", f"fonts/{name}-[0-9]*.ttf", f"fonts/{name}-charmap-[0-9]*.json", _from_json)


def _material(folder: str, name: str, extension: str) -> Font:
    stem = f"assets/{folder}/{name}-Regular"
    return Font("iconipy", f"{stem}.{extension}", f"{stem}.codepoints", _from_lines)


FONT_AWESOME = _qtawesome("fontawesome6-solid-webfont")
MATERIAL_DESIGN = _qtawesome("materialdesignicons6-webfont")
PHOSPHOR = _qtawesome("phosphor")
REMIX = _qtawesome("remixicon")
ELUSIVE = _qtawesome("elusiveicons-webfont")
LUCIDE = Font("iconipy", "assets/lucide/lucide.ttf", "assets/lucide/info.json", _from_json)
BOXICONS = Font("iconipy", "assets/boxicons/boxicons.ttf", "assets/boxicons/boxicons.css", _from_css)
LINEICONS = Font("iconipy", "assets/lineicons/lineicons.ttf", "assets/lineicons/unicodesMap.json", _from_json)
MATERIAL_FILLED = _material("material_icons_regular", "MaterialIcons", "ttf")
MATERIAL_OUTLINED = _material("material_icons_outlined_regular", "MaterialIconsOutlined", "otf")
FLUENT_REGULAR, FLUENT_FILLED = (
    Font(FLUENT, f"fonts/FluentSystemIcons-{name.title()}.ttf", f"glyphmap-{name}.json", _from_json)
    for name in ("regular", "filled")
)
TYPICONS = Font("iconipy", "assets/typicons/typicons.ttf", "assets/typicons/typicons.css", _from_css)

# The validation styles have a sibling by the same designer among the training styles, as three of the four
# test styles have. At 7 styles or more there are 251 concepts; each keeps 3 to 10 styles to train on, and 214
# of them have validation pictures.
STYLES = (
    Style("font awesome", FONT_AWESOME, r"(.+)"),
    Style("material design", MATERIAL_DESIGN, r"(.+)(?<!-outline)"),
    Style("material design outline", MATERIAL_DESIGN, r"(.+)-outline", VAL),
    Style("phosphor bold", PHOSPHOR, r"(.+)-bold"),
    Style("phosphor fill", PHOSPHOR, r"(.+)-fill", VAL),
    Style("remix line", REMIX, r"(.+?)(?:-\d)?-line"),
    Style("remix fill", REMIX, r"(.+?)(?:-\d)?-fill", TEST),
    Style("elusive", ELUSIVE, r"(.+?)(?:-alt)?"),
    Style("lucide", LUCIDE, r"(.+)", TEST),
    Style("boxicons regular", BOXICONS, r"bx-(.+)", TEST),
    Style("boxicons solid", BOXICONS, r"bxs-(.+)"),
    Style("lineicons", LINEICONS, r"lni-(.+?)(?:-\d+)?"),
    Style("material icons filled", MATERIAL_FILLED, r"(.+)", TEST),
    Style("material icons outlined", MATERIAL_OUTLINED, r"(.+)"),
    Style("typicons", TYPICONS, r"typcn-(.+?)(?:-outline)?"),
    # Of 3,409 concepts in 2 styles or more they make 5,093; most of the others are drawn in these two alone.
    Style("fluent regular", FLUENT_REGULAR, r"ic-fluent-(.+?)-\d+-regular", further="fluent"),
    Style("fluent filled", FLUENT_FILLED, r"ic-fluent-(.+?)-\d+-filled", TEST, further="fluent"),
)


def styles_with(also: Iterable[str]) -> tuple[int, ...]:
    """Indices into STYLES of those that are always there, and of these further ones."""
    return tuple(i for i, style in enumerate(STYLES) if style.further is None or style.further in also)


# ---------------------------------------------------------------- names -> concepts

Words = tuple[str, ...]


@dataclass(frozen=True)
class Concept:
    name: str
    glyphs: Mapping[int, int]  # index into STYLES -> code point


def words_of(glyph: str, pattern: str) -> Words | None:
    """The words of a glyph name, None if it is of another style or says nothing: '123', 'alpha-a'."""
    match = re.fullmatch(pattern, glyph)
    words = tuple(re.findall(r"[^\W_]+", match[1].lower())) if match else ()
    meaningful = words and not any(len(word) == 1 or re.search(r"\d", word) for word in words)
    return words if meaningful else None


@cache
def concepts_drawn_in(styles: int, also: tuple[str, ...] = ()) -> tuple[Concept, ...]:
    """The concepts drawn in at least that many styles, some to train on, some to test on. Ordered by name."""
    spellings = _spellings(styles_with(also))
    concepts = []
    for by_style in spellings.values():
        if len(by_style) < styles:
            continue
        words = _usual_order(by_style.values())
        codes = ((style, _plainest(glyphs, words)) for style, glyphs in by_style.items())
        drawn = {style: code for style, code in codes if glyph(style, code, 32) is not None}
        splits = {STYLES[style].split for style in drawn}
        if len(drawn) >= styles and {TRAIN, TEST} <= splits:
            concepts.append(Concept(" ".join(words), drawn))
    return tuple(sorted(concepts, key=lambda concept: concept.name))


Spelling = tuple[Words, str, int]  # the words in order, the glyph's name, its code point


def _spellings(styles: Iterable[int]) -> dict[Words, dict[int, list[Spelling]]]:
    """Sorted words -> style -> the glyphs so called: 'circle-check' and 'check-circle' are one concept."""
    spellings: dict[Words, dict[int, list[Spelling]]] = defaultdict(lambda: defaultdict(list))
    for i in styles:
        for spelling in _spelt(STYLES[i]):
            spellings[tuple(sorted(spelling[0]))][i].append(spelling)
    return spellings


@cache
def _spelt(style: Style) -> tuple[Spelling, ...]:
    """The glyphs of a style that are called by words."""
    named = ((words_of(name, style.pattern), name, code) for name, code in style.font.codes().items())
    return tuple((words, name, code) for words, name, code in named if words)


def _usual_order(styles: Iterable[list[Spelling]]) -> Words:
    votes = Counter(words for glyphs in styles for words in {words for words, _, _ in glyphs})
    return min(votes, key=lambda words: (-votes[words], words))


def _plainest(glyphs: Sequence[Spelling], usual: Words) -> int:
    """The code point of 'anchor' rather than 'anchor-outline' or 'anchor-alt'."""
    return min(glyphs, key=lambda spelling: (spelling[0] != usual, len(spelling[1]), spelling[1]))[2]


# ---------------------------------------------------------------- glyphs -> pictures


@cache
def _font(style: int, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout draws one glyph a character: no ligatures, whatever libraries Pillow has.
    return ImageFont.truetype(STYLES[style].font.path, size, layout_engine=ImageFont.Layout.BASIC)


def _draw(style: int, code: int, size: int) -> Image.Image | None:
    font = _font(style, size)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(chr(code)))
    if right <= left or bottom <= top:
        return None
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), chr(code), fill=255, font=font)
    ink = image.getbbox()
    return image.crop(ink) if ink else None


@cache
def _notdef(style: int, size: int) -> Image.Image | None:
    """What the font draws for a character it does not have."""
    return _draw(style, 0x10FFFF, size)


@lru_cache(maxsize=16)
def glyph(style: int, code: int, size: int) -> Image.Image | None:
    """Coverage of a glyph, cut to its ink, in a font of `size` pixels; None if the font does not have it."""
    image = _draw(style, code, size)
    return None if image is None or image == _notdef(style, size) else image


def render(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """A picture (size, size, 3) of a glyph: colours, scale, rotation, place, brightness, noise are drawn."""
    ink, paper = _colours(rng)
    coverage = _placed(image, size, rng)[:, :, None]
    pixels = paper + coverage * (ink - paper)
    pixels *= rng.uniform(0.8, 1.2)
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(2, 8)
    return np.clip(pixels, 0, 255).astype(np.uint8)


LUMA = np.array([0.299, 0.587, 0.114])


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ink and paper, (3,) each, whose brightness differs by a quarter of the range or more."""
    while True:
        ink, paper = rng.uniform(0, 255, (2, 3))
        if abs((ink - paper) @ LUMA) >= 64:
            return ink.astype(np.float32), paper.astype(np.float32)


BORDER = 2
"""Empty pixels around a glyph before it is transformed, or its edges come out jagged."""


def _placed(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """Coverage in [0, 1], (size, size). The glyph's longer side, unrotated, is .55-.95 of the picture's."""
    scale = rng.uniform(0.55, 0.95)
    angle = np.deg2rad(rng.uniform(-20, 20))
    x, y = size / 2 + rng.uniform(-0.5, 0.5, 2) * (1 - scale) * size
    zoom = max(image.size) / (scale * size)  # glyph pixels per picture pixel
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)

    bordered = ImageOps.expand(image, BORDER)
    middle_x, middle_y = bordered.width / 2, bordered.height / 2
    to_glyph = (c, s, middle_x - c * x - s * y, -s, c, middle_y + s * x - c * y)
    placed = bordered.transform((size, size), Image.Transform.AFFINE, to_glyph, Image.Resampling.BICUBIC)
    return np.asarray(placed, dtype=np.float32) / 255


# ---------------------------------------------------------------- the data set


class Icons(Dataset):
    """Real images with names: concepts drawn by several designers, each drawing rendered several times.

    Whole styles are held out to test on, and two others to make choices on. `also` names further packages of icons:
    "fluent" has 1,684 concepts that no other has in two styles.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        size: Annotated[int, Ge(16)] = 96,
        styles: Annotated[int, Ge(2)] = 7,
        renderings: Annotated[int, Ge(1)] = 8,
        concepts: Annotated[int, Ge(2)] | None = None,
        seed: int = 0,
        also: Annotated[tuple[Literal["fluent"], ...], Since("0.2")] = (),
    ):
        self.size = size
        self.styles = styles
        self.renderings = renderings
        self.concepts = concepts
        self.seed = seed
        self.also = tuple(sorted(set(also)))

    def load(self, cache: Path) -> Images:
        concepts, notes = self._chosen()
        drawings = [(k, style) for k, concept in enumerate(concepts) for style in sorted(concept.glyphs)]

        def picture(i: int) -> np.ndarray:
            k, style = drawings[i // self.renderings]
            return self._render(concepts[k], style, i % self.renderings)

        count = len(drawings) * self.renderings
        key = self._fingerprint(concepts)
        threads = torch.get_num_threads()  # most of a picture is numpy's and Pillow's work, beside which others go on
        pixels = stored_pixels(cache / f"icons-{key[:16]}.npy", count, self.size, picture, threads=threads)
        labels = np.repeat([k for k, _ in drawings], self.renderings)
        split = np.repeat([STYLES[style].split for _, style in drawings], self.renderings)
        names = [concept.name for concept in concepts]
        return StoredImages(names, labels, split, pixels, np.arange(count), key, notes)

    def open_picture(self, path: Path) -> np.ndarray:
        return open_picture(path, self.size)

    def _chosen(self) -> tuple[list[Concept], list[str]]:
        concepts = concepts_drawn_in(self.styles, self.also)
        if len(concepts) < 2:
            raise DataError(
                f"dataset 'icons' has {counted(len(concepts), 'concept')} drawn in at least {self.styles} "
                f"of its {len(styles_with(self.also))} styles, and at least 2 are needed: lower 'styles'"
            )
        often = sorted(concepts, key=lambda concept: (-len(concept.glyphs), concept.name))
        kept = sorted(often[: self.concepts], key=lambda concept: concept.name)
        if self.concepts is None or len(kept) == self.concepts:
            return kept, []
        short = f"dataset 'icons' has {len(kept)} concepts in {self.styles} styles or more, not {self.concepts}"
        return kept, [short]

    def _render(self, concept: Concept, style: int, rendering: int) -> np.ndarray:
        image = glyph(style, concept.glyphs[style], self.size)
        assert image is not None  # concepts_drawn_in kept only those the font has
        # Each picture has its own stream, so that it is the same whatever else is rendered.
        name = f"{self.seed}/{concept.name}/{STYLES[style].name}/{rendering}"
        entropy = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16])
        return render(image, self.size, np.random.default_rng(entropy))

    def _fingerprint(self, concepts: Sequence[Concept]) -> str:
        styles = [STYLES[i] for i in styles_with(self.also)]
        return fingerprint.of_json(
            {
                "renderer": [RENDERER, PIL.__version__, features.version("freetype2"), np.__version__],
                "fonts": {style.font.file: _contents(style.font.path) for style in styles},
                "concepts": [[concept.name, sorted(concept.glyphs.items())] for concept in concepts],
                "styles": [[style.name, style.split] for style in styles],
                "size": self.size,
                "renderings": self.renderings,
                "seed": self.seed,
            }
        )


@cache
def _contents(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
