"""The page and the named endpoints, in Gradio: what is asked goes to `Answers`, and what comes back is drawn or plain JSON."""

from __future__ import annotations

import functools
import html
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from wspace.api import UserError, WspaceError, open_picture
from wspace_serve import drawing
from wspace_serve.answers import Answers, overlaid

TITLES = {"generated": "Generated head", "universal": "Universal head"}
THUMBNAIL = 160  # pixels on a side
ANSWERS: dict[str, Any] = {
    "concurrency_id": "answers",
    "concurrency_limit": 1,
}  # one at a time: a head takes milliseconds
EXPORTS: dict[str, Any] = {
    "concurrency_id": "exports",
    "concurrency_limit": 1,
}  # seconds each: answers do not wait for them
HIDDEN: dict[str, Any] = {"api_visibility": "private"}  # the page's own calls; the endpoints are below
THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="teal", neutral_hue="slate"
).set(
    body_text_color_subdued="*neutral_500",
    block_info_text_color="*neutral_500",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
)
"""Fonts that every machine has: Gradio's usual ones come from another host. Grey and teal as dark as reading needs."""


def careful(answer: Callable[..., Any], uploads: Path) -> Callable[..., Any]:
    """As `answer`, but what cannot be answered is a sentence, and nothing ends the server."""
    folders = re.compile(rf"{re.escape(str(uploads))}/(?:[\w-]+/)*")

    @functools.wraps(answer)
    def call(*given: Any, **named: Any) -> Any:
        try:
            return answer(*given, **named)
        except WspaceError as error:
            sentence = folders.sub("", str(error))  # a user knows the name of a picture, not where it lies here
            # Gradio shows messages as HTML.
            raise gr.Error(
                html.escape(sentence, quote=False), title="This cannot be done", print_exception=False
            ) from None
        except Exception:
            traceback.print_exc()
            raise gr.Error(
                "the server failed at this, and goes on; its terminal says why", print_exception=False
            ) from None

    return call


def build(answers: Answers) -> gr.Blocks:
    """The page, with its endpoints."""
    with gr.Blocks(title=f"wspace {answers.run.recipe.name}", analytics_enabled=False) as page:
        add_endpoints(answers)  # first: whose names they are
        _Page(answers).lay_out()
    return page


def add_endpoints(answers: Answers) -> None:
    """The JSON API: functions whose names, types and first sentences are what Gradio says of them."""

    def describe(classes: list[str]) -> dict[str, Any]:
        """How classes stand to those that the run knows, and the accuracy to expect of a head for them."""
        return answers.describe(classes)

    def answer(
        classes: list[str], pictures: list[str], examples: dict[str, list[str]] | None = None
    ) -> list[dict[str, Any]]:
        """What the generated head and the universal one see in pictures."""
        named = answers.answer(classes, pictures, examples)
        return [{"picture": one.file.name} | {head: as_json(of) for head, of in one.heads.items()} for one in named]

    def look(
        classes: list[str], pictures: list[str], examples: dict[str, list[str]] | None = None
    ) -> list[dict[str, Any]]:
        """Where the generated head looks in pictures, in each a square of numbers from 0 to 1, row by row."""
        return [{"map": one.map.round(3).tolist()} for one in answers.look(classes, pictures, examples)]

    def forming(
        classes: list[str], pictures: list[str] | None = None, examples: dict[str, list[str]] | None = None
    ) -> list[dict[str, Any]]:
        """The head after each step of sampling: its accuracy, and what it sees in the first picture."""
        return [vars(step) for step in answers.forming(classes, pictures or [], examples)]

    def export(
        classes: list[str], format: str, precision: str = "float32", examples: dict[str, list[str]] | None = None
    ) -> dict[str, Any]:
        """A file with the head, or with the whole classifier, to be had for ten minutes."""
        file, measured = answers.export(classes, format, precision, examples)
        return {"url": f"/gradio_api/file={file}", **measured}

    for endpoint in (describe, answer, look, forming):
        gr.api(careful(endpoint, answers.uploads), api_name=endpoint.__name__, **ANSWERS)
    gr.api(careful(export, answers.uploads), api_name="export", **EXPORTS)


class _Page:
    """Components of one page, and what happens at their events."""

    def __init__(self, answers: Answers):
        self.answers = answers
        self.careful = functools.partial(careful, uploads=answers.uploads)

    def lay_out(self) -> None:
        """Into the Blocks that are open."""
        answers = self.answers
        gr.HTML(drawing.header(answers.run.recipe.name, answers.classes_known), padding=False)
        examples = gr.State({})  # class -> files of pictures of it
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                names, chips = self._description("Class names", ", ".join(answers.example), examples)
                pictures = gr.Gallery(
                    label="Pictures to name: drop, paste or choose",
                    sources=["upload", "clipboard"],
                    file_types=["image"],
                    interactive=True,
                    columns=4,
                    height=220,
                    object_fit="contain",
                    buttons=[],
                    elem_id="pictures",
                )
                ask = gr.Button("Name the pictures", variant="primary")
                looking = gr.Checkbox(
                    label="Show where the head looks (Grad-CAM)",
                    info=answers.why_not_look,
                    interactive=answers.why_not_look is None,
                )
                if answers.run.takes_pictures:
                    with gr.Accordion("Pictures of a class", open=False):
                        self._examples(names, chips, examples)
                with gr.Accordion("Compare with another description", open=False):
                    other, _ = self._description("Other class names", "", examples)
                gr.HTML(drawing.legend(), padding=False)
            with gr.Column(scale=3, min_width=300):
                result = gr.HTML(
                    drawing.hint("Add a picture, and the answer stands here."), padding=False, elem_id="answer"
                )
                with gr.Accordion("Watch the head form", open=False):
                    watch = gr.Button("Sample it step by step")
                    steps = gr.HTML(padding=False, elem_id="steps")
                with gr.Accordion("Download", open=False):
                    self._download(names, examples)
        asked = [names, pictures, other, looking, examples]
        for event in (ask.click, names.submit, other.submit):
            event(self.careful(self.answer), asked, result, **ANSWERS, **HIDDEN)
        watch.click(self.careful(self.forming), [names, pictures, examples], steps, **ANSWERS, **HIDDEN)

    def _description(self, label: str, value: str, examples: gr.State) -> tuple[gr.Textbox, gr.HTML]:
        """Where class names are typed, with their chips below."""
        names = gr.Textbox(
            label=label,
            info="Two or more, separated by commas. Any words will do.",
            value=value,
            lines=1,
            max_lines=4,
        )
        chips = gr.HTML(self.chips(value, {}) if value else "", padding=False)
        gr.on(
            [names.change, examples.change],
            self.careful(self.chips),
            [names, examples],
            chips,
            trigger_mode="always_last",
            show_progress="hidden",
            **ANSWERS,
            **HIDDEN,
        )
        return names, chips

    def _examples(self, names: gr.Textbox, chips: gr.HTML, examples: gr.State) -> None:
        """Where pictures of a class are added."""
        which = gr.Dropdown(label="Class", choices=self.answers.example, allow_custom_value=False)
        shown = gr.Gallery(
            label="Pictures of it",
            sources=["upload", "clipboard"],
            file_types=["image"],
            interactive=True,
            columns=4,
            height=180,
            object_fit="contain",
            buttons=[],
            elem_id="examples",
        )
        names.change(
            lambda text, now: gr.Dropdown(choices=split(text), value=now if now in split(text) else None),
            [names, which], which, show_progress="hidden", trigger_mode="always_last", **HIDDEN,
        )  # fmt: skip
        which.input(lambda name, given: given.get(name), [which, examples], shown, show_progress="hidden", **HIDDEN)
        for event in (shown.upload, shown.delete):
            event(self.careful(added), [which, shown, examples], examples, show_progress="hidden", **HIDDEN)

    def _download(self, names: gr.Textbox, examples: gr.State) -> None:
        """Where a head becomes a file."""
        with gr.Row():
            to = gr.Dropdown(label="Format", choices=self.answers.formats, value=self.answers.formats[0], min_width=140)
            precision = gr.Dropdown(
                label="Precision", choices=["float32", "float16", "int8"], value="float32", min_width=140
            )
        make = gr.Button("Make the file")
        file = gr.File(label="File", visible=False, interactive=False)
        measured = gr.HTML(padding=False)
        make.click(self.careful(self.export), [names, to, precision, examples], [file, measured], **EXPORTS, **HIDDEN)

    def chips(self, text: str, examples: dict[str, list[str]]) -> str:
        """Class names as they stand, while they are typed."""
        names, counts = split(text), {name: len(files) for name, files in examples.items()}
        try:
            classes = self.answers.standings(names)
        except UserError as error:
            return drawing.hint(str(error))
        try:
            expected = self.answers.describe(names)["expected_accuracy"]
        except UserError as error:
            return drawing.chips(classes, None, counts, str(error))
        return drawing.chips(classes, expected, counts)

    def answer(self, text: str, gallery: Any, other: str, looking: bool, examples: dict[str, list[str]]) -> str:
        """What heads see in the pictures, those of another description beside those of the first."""
        pictures, names = in_gallery(gallery), split(text)
        named = self.answers.answer(names, pictures, of_these(names, examples))
        heads = [{TITLES[head]: seen for head, seen in one.heads.items()} for one in named]
        if others := split(other):
            beside = self.answers.answer(others, pictures, of_these(others, examples))
            for columns, one in zip(heads, beside, strict=True):
                columns |= {f"Other description, {TITLES[head].lower()}": seen for head, seen in one.heads.items()}
        maps = (
            [overlaid(one) for one in self.answers.look(names, pictures, of_these(names, examples))] if looking else []
        )
        cards = []
        for number, one in enumerate(named):
            name, shown = one.file.name, [_figure(open_picture(one.file, THUMBNAIL), one.file.name, one.file.name)]
            if maps:
                shown.append(_figure(maps[number], f"where the head looks in {name}", "where it looks"))
            cards.append({"pictures": shown, "heads": heads[number]})
        return drawing.answers(cards)

    def forming(self, text: str, gallery: Any, examples: dict[str, list[str]]) -> str:
        """The head after each step."""
        return drawing.steps(
            self.answers.forming(split(text), in_gallery(gallery)[:1], of_these(split(text), examples))
        )

    def export(self, text: str, to: str, precision: str, examples: dict[str, list[str]]) -> tuple[Any, str]:
        """The file, and what was measured of it."""
        file, measured = self.answers.export(split(text), to, precision, of_these(split(text), examples))
        says = f"{measured['bytes'] / 1e6:.2f} MB, to be had for ten minutes."
        if "same" in measured:
            says += f" Tried on {measured['pictures']} test pictures: the same class on {measured['same']}."
        return gr.File(str(file), visible=True), drawing.hint(says)


def as_json(probabilities: dict[str, float]) -> dict[str, Any]:
    """What a head sees in a picture, as `wspace predict --json` has it."""
    return {"class": max(probabilities, key=probabilities.__getitem__), "probabilities": probabilities}


def _figure(pixels: np.ndarray, alt: str, caption: str) -> dict[str, str]:
    return {"data": drawing.as_data(pixels), "alt": alt, "caption": caption}


def split(text: str) -> list[str]:
    """Class names as they are typed: between commas or on lines."""
    return [name for part in re.split(r"[,\n]", text) if (name := " ".join(part.split()))]


def in_gallery(gallery: Any) -> list[str]:
    """The files of what a gallery holds."""
    return [file for file, _ in gallery or ()]


def of_these(names: list[str], examples: dict[str, list[str]]) -> dict[str, list[str]]:
    """Pictures of these classes: a class may have been taken back since."""
    return {name: files for name, files in examples.items() if name in names}


def added(name: str | None, gallery: Any, examples: dict[str, list[str]]) -> dict[str, list[str]]:
    """The pictures of classes, those of one replaced by what the gallery holds. Raises UserError."""
    if name is None:
        raise UserError("choose the class first that the pictures are of")
    return {**examples, name: in_gallery(gallery)}
