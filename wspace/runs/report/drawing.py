"""What every figure is drawn with: size, type, colours, and a PNG data URI in the end.

Matplotlib's objects alone: no global state is touched.
"""

from __future__ import annotations

import base64
import io
import warnings
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.6  # inches: narrow, for the text to be legible on a telephone
DPI = 180
TEXT = 10  # points
SCALE = "viridis"  # of colours: even in lightness, and for colour-blind readers too

# Okabe and Ito's colours (2008), told apart by colour-blind readers
BLUE, ORANGE, GREEN, VERMILLION, INK, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#222222", "#767676"
SKY, PINK = "#56B4E9", "#CC79A7"


def new_figure(height: float, width: float = WIDTH) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def dress(panel: Axes, title: str, xlabel: str, grid: str) -> None:
    panel.set_title(title, fontsize=TEXT, color=INK, parse_math=False)
    panel.set_xlabel(xlabel, fontsize=TEXT, color=INK, parse_math=False)
    panel.tick_params(labelsize=TEXT - 1, length=3, color=GREY, labelcolor=INK)
    panel.grid(axis="y" if grid == "y" else "x", color="#e4e4e4")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def short(name: str, width: int = 14) -> str:
    name = " ".join(name.split())
    return name if len(name) <= width else name[: width - 1] + "…"


def in_two_lines(name: str, width: int = 13) -> str:
    """As much of a name as two lines of this width hold."""
    return "\n".join(wrap(short(name, 2 * width), width)[:2])


def encoded(figure: Figure, *, colours: int | None = 128) -> str:
    """As a PNG of so many colours, a third of the size; None: of as many as there are.

    Drawn once, where `Figure.savefig` would draw all twice, the first time for the layout alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class named in a script that the font lacks
        if colours is None:
            canvas.print_png(buffer, metadata={"Software": None})
        else:
            canvas.draw()
            image = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))
            image.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
