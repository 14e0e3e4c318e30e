"""docs/gallery.md and its pictures: `python docs/site/gallery.py runs/t2w runs/nano`, of two finished runs.

One is of the default recipe. Of the other, which is small, are the studies that train networks for their picture. Studies that
a run has not had yet are made first; with all of them at hand it takes seconds.
"""

from __future__ import annotations

import base64
import html
import io
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wspace.runs.finished import stages_of
from wspace.runs.report.section import sections
from wspace.support.names import PAGE

DOCS = Path(__file__).parents[1]
WIDEST = 760  # pixels: as wide as a page of the site
COLOURS = 160
STUDIES = {
    "plot-trajectory": "plot runs/t2w trajectory",
    "plot-landscape": "plot runs/t2w landscape",
    "plot-cam": "plot runs/t2w cam",
    "plot-space": "plot runs/t2w space",
    "init": "init runs/nano --tasks 16 --shots 16,4",
    "enhance": "enhance runs/nano --tasks 16",
    "interpolate": "interpolate runs/t2w",
    "expectation": "expectation runs/t2w --tasks 100",
}
"""A section of the report -> the command that makes it, smaller than by itself where that would take long."""

REPORTED = re.compile(
    r'<figure id="(?P<name>[^"]+)">.*?src="(?P<uri>[^"]+)".*?<figcaption>(?P<caption>.*?)</figcaption>', re.S
)
HEAD = """\
# Gallery

What wspace draws, of the default recipe's run (`wspace run t2w`, seed 42). The first ones are in each run's
`report.html`; each other command adds its own to that page. Where networks are trained for a picture, it is of the small run
of `nano`. `python docs/site/gallery.py runs/t2w runs/nano` makes this page.
"""


@dataclass(frozen=True)
class Picture:
    name: str
    caption: str
    uri: str

    def save(self) -> None:
        """As wide as the site shows it, and of few colours: a third of the bytes."""
        image = Image.open(io.BytesIO(base64.b64decode(self.uri.partition(",")[2]))).convert("RGB")
        image.thumbnail((WIDEST, 10 * WIDEST), Image.Resampling.LANCZOS)
        few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # of rare ones, too
        few.save(DOCS / "gallery" / f"{self.name}.png", "png", optimize=True)


def reported(run: Path) -> Iterator[Picture]:
    """Those that the last stage of a run draws."""
    page = (run / stages_of(run)["report"] / PAGE).read_text(encoding="utf-8")
    for match in REPORTED.finditer(page):
        yield Picture(match["name"], " ".join(html.unescape(match["caption"]).split()), match["uri"])


def studied(runs: Mapping[str, Path]) -> Iterator[tuple[str, str, Sequence[Picture]]]:
    """Title, command and pictures of each study, of the run that its command names."""
    for use, command in STUDIES.items():
        name, folder = next((name, folder) for name, folder in runs.items() if name in command.split())
        if use not in {section.use for section in sections(folder)}:
            words = [str(folder) if word == name else word for word in command.split()]
            subprocess.run([sys.executable, "-m", "wspace", *words], check=True)
        (made,) = (section for section in sections(folder) if section.use == use)
        pictures = [Picture(f"{use}-{figure.name}", figure.caption, figure.uri) for figure in made.figures]
        yield made.title, f"wspace {command}", pictures


def main(run: Path, small: Path) -> None:
    (DOCS / "gallery").mkdir(exist_ok=True)
    for old in (DOCS / "gallery").glob("*.png"):
        old.unlink()
    parts = [HEAD, "## The report\n"]
    for picture in reported(run):
        parts.append(_shown(picture))
    for title, command, pictures in studied({"runs/t2w": run, "runs/nano": small}):
        parts += [f"## {title}\n", f"```console\n{command}\n```\n", *map(_shown, pictures)]
    (DOCS / "gallery.md").write_text("\n".join(parts), encoding="utf-8")


def _shown(picture: Picture) -> str:
    picture.save()
    return f"{picture.caption}\n\n![{picture.name.replace('-', ' ')}](gallery/{picture.name}.png)\n"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
