"""docs/gallery.md and its pictures: `python docs/site/gallery.py runs/t2w`, of a finished run of the default recipe.

Studies that the run has not had yet are made first; with all of them at hand it takes seconds.
"""

from __future__ import annotations

import base64
import html
import io
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
    "plot-trajectory": "plot {} trajectory",
    "plot-landscape": "plot {} landscape",
    "plot-cam": "plot {} cam",
    "plot-space": "plot {} space",
    "init": "init {} --tasks 6 --shots 16,4",
    "enhance": "enhance {} --tasks 20",
    "interpolate": "interpolate {}",
    "expectation": "expectation {} --tasks 100",
}
"""A section of the report -> the command that makes it, smaller than by itself where that would take long."""

REPORTED = re.compile(
    r'<figure id="(?P<name>[^"]+)">.*?src="(?P<uri>[^"]+)".*?<figcaption>(?P<caption>.*?)</figcaption>', re.S
)
HEAD = """\
# Gallery

What wspace draws, of the default recipe's run (`wspace run t2w`, seed 42). The first ones are in each run's
`report.html`; each other command adds its own to that page. `python docs/site/gallery.py runs/t2w` makes this page.
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


def studied(run: Path) -> Iterator[tuple[str, str, Sequence[Picture]]]:
    """Title, command and pictures of each study."""
    made = {section.use: section for section in sections(run)}
    for use, command in STUDIES.items():
        if use not in made:
            subprocess.run([sys.executable, "-m", "wspace", *command.format(run).split()], check=True)
    made = {section.use: section for section in sections(run)}
    for use, command in STUDIES.items():
        pictures = [Picture(f"{use}-{figure.name}", figure.caption, figure.uri) for figure in made[use].figures]
        yield made[use].title, f"wspace {command.format('runs/t2w')}", pictures


def main(run: Path) -> None:
    (DOCS / "gallery").mkdir(exist_ok=True)
    for old in (DOCS / "gallery").glob("*.png"):
        old.unlink()
    parts = [HEAD, "## The report\n"]
    for picture in reported(run):
        parts.append(_shown(picture))
    for title, command, pictures in studied(run):
        parts += [f"## {title}\n", f"```console\n{command}\n```\n", *map(_shown, pictures)]
    (DOCS / "gallery.md").write_text("\n".join(parts), encoding="utf-8")


def _shown(picture: Picture) -> str:
    picture.save()
    return f"{picture.caption}\n\n![{picture.name.replace('-', ' ')}](gallery/{picture.name}.png)\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
