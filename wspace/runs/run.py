"""A finished run: weights for any classes, their score, and what they see in a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.prompts import prompts_of
from wspace.data.splits import UNSEEN_TASKS
from wspace.data.tasks import Task
from wspace.data.twins import listed, twins
from wspace.interfaces import Classifier, Exporter, Prompts, Target
from wspace.learning.baselines import descriptions
from wspace.learning.expectation import Expectation
from wspace.learning.fitting import predict
from wspace.learning.ridge_regression import Ridge
from wspace.learning.system import System
from wspace.recipes.bind import bind_one, bind_section
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import Registry
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import read_value
from wspace.runs.artifacts import TrainedOpponents, Zoo, chosen_of
from wspace.runs.assemble import build_system, load_system
from wspace.runs.exporting import Exported, checked, classifier_of, trial_of, write
from wspace.runs.finished import recipe_of, report_of, stages_of
from wspace.runs.report.methods import methods_of
from wspace.runs.standing import KnownClasses, Standing
from wspace.runs.store import intact
from wspace.runs.workbench import Workbench
from wspace.support.classes import check_classes, class_meant, trimmed
from wspace.support.errors import Diverged, FileError, UserError, WspaceError
from wspace.support.files import new_folder
from wspace.support.methods import RIDGE, UNIVERSAL
from wspace.support.names import GENERATOR, PROMPT_TEXTS
from wspace.support.progress import Progress
from wspace.support.quantities import counted
from wspace.support.seeding import stream
from wspace.support.settings import Generate
from wspace.support.templates import template
from wspace.weights.files.network import Network

if TYPE_CHECKING:
    from wspace.runs.report.page import Report

ROUNDING = 1e-5  # of the largest weight: draws no further apart are one network, computed in batches


Pictures = Mapping[str, Sequence[str | Path]]
"""Class name -> files of pictures of it."""


@dataclass(frozen=True)
class Prediction:
    """What a network sees in one picture."""

    picture: Path  # its file
    classes: tuple[str, ...]  # of the network
    probabilities: tuple[float, ...]  # of each class, in that order; the network's own, and not calibrated

    @property
    def best(self) -> str:
        """The most probable class."""
        return self.classes[max(range(len(self.classes)), key=self.probabilities.__getitem__)]

    def as_json(self) -> dict[str, Any]:
        """As `wspace predict --json` prints it."""
        probabilities = dict(zip(self.classes, self.probabilities, strict=True))
        return {"picture": str(self.picture), "class": self.best, "probabilities": probabilities}


class Run:
    """A finished run's folder. Artifacts are read, and encoders loaded, when they are first needed."""

    def __init__(
        self,
        folder: Path,
        recipe: BoundRecipe,
        artifacts: dict[str, Path],
        progress: Progress,
        registry: Registry | None = None,
        bench: Workbench | None = None,
    ):
        self.folder, self.recipe, self.artifacts = folder, recipe, artifacts
        self.registry = registry or load_plugins().registry  # components that recipes may name
        self.bench = bench or Workbench(recipe, progress, dims=lambda: self.zoo.dims)
        """Data, encoders and features of the recipe. The target's shapes are the zoo's, and need none of them."""

    @classmethod
    def open(cls, folder: str | Path, plugins: Sequence[Path] = (), progress: Progress | None = None) -> Run:
        """Raises NotARun unless the folder is that of a finished run."""
        folder = Path(folder)
        stages = stages_of(folder)
        registry = load_plugins(plugins).registry
        recipe = recipe_of(folder, registry)
        artifacts = {name: folder / artifact for name, artifact in stages.items()}
        return cls(folder, recipe, artifacts, progress or Progress(), registry)

    @property
    def report(self) -> Report:
        """What the run measured, as `wspace report --json` prints it; a notebook shows the table."""
        from wspace.runs.report.page import Report  # its figures are no part of an answer

        return Report(report_of(self.folder), methods_of(self.registry.all("opponent")))

    def __repr__(self) -> str:
        try:
            size = f", networks of {counted(self.target.spec.size, 'weight', form=',')}"
        except WspaceError:  # as of a base model that is not here: the run is none the less what it is
            size = ""
        return f"<Run {self.folder}: recipe {self.recipe.name}, seed {self.recipe.seed}{size}>"

    def _repr_html_(self) -> str:
        from wspace.runs.report.page import PACKAGE

        tasks, recipe = self.zoo.tasks, self.recipe
        facts = {
            "folder": str(self.folder),
            "generator": f"{recipe.generator.name}, of {counted(len(tasks.training), 'network')}",
            "target": f"{recipe.target.name}, {counted(self.target.spec.size, 'weight', form=',')}",
            "known classes": len(tasks.classes),
        }
        return template(PACKAGE, "run.html.j2").render(
            title=f"{recipe.name}, seed {recipe.seed}",
            headline=self.report.headline,
            facts=list(facts.items()),
        )

    @cached_property
    def zoo(self) -> Zoo:
        """The networks that the generator was trained on, and the tasks of every split."""
        return Zoo(self.artifacts["zoo"])

    @property
    def target(self) -> Target:
        """The architecture whose weights are generated: the workbench's, the only one of a run."""
        return self.bench.target

    @cached_property
    def system(self) -> System:
        """The trained generator, with its tokenizer and conditioner, on the recipe's device."""
        system = build_system(self.recipe, self.target, self.zoo.dims["text_dim"])
        return load_system(system, self.artifacts["train"] / GENERATOR).to(self.bench.device)

    @cached_property
    def opponents(self) -> TrainedOpponents:
        """What generated networks are compared with and was trained on images: the oracles, the universal head."""
        return TrainedOpponents(self.artifact("opponents"))

    def artifact(self, stage: str) -> Path:
        """The folder of what a stage left. Raises FileError for a run that was pushed to a hub without it."""
        folder = self.artifacts[stage]
        if not folder.is_dir():
            raise FileError(
                f"{folder}: the run came here without it; `wspace push --whole` takes it along, and `wspace run` makes it again"
            )
        return folder

    @cached_property
    def prompt_texts(self) -> Tensor:
        """(n, T), of every class of the data set: what the generator was conditioned on."""
        return load_file(intact(self.artifacts["train"], PROMPT_TEXTS))["texts"]

    def task_of(self, classes: Sequence[str]) -> Task:
        """Of names as a user wrote them, the task's class numbers (K,).

        Raises UserError unless there are two different ones at least and the data set has all of them.
        """
        names, classes_with_images = self.told_apart(classes), self.bench.images.classes
        missing = [name for name in names if name not in classes_with_images]
        if missing:
            hint = class_meant(missing[0], classes_with_images)
            raise UserError(f"the data set has no images of {', '.join(map(repr, missing))} to score on.{hint}")
        return tuple(map(classes_with_images.index, names))

    def told_apart(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The names, trimmed, of classes that the recipe's text encoder tells apart. Raises UserError for others.

        And for more classes than a target with `places` has.
        """
        names = check_classes(classes)
        if 0 < self.target.places < len(names):
            raise UserError(
                f"{len(names)} classes, and this run's networks have {self.target.places} outputs, each for one of them"
            )
        for group in twins(self.bench.encode_classes(names)):
            raise UserError(
                f"the text encoder makes one vector of {listed([names[number] for number in group])}: no network can tell "
                "them apart; leave out all but one, or use other names"
            )
        return names

    def names_of(self, task: Task) -> tuple[str, ...]:
        """The names of a task's classes: (K,)."""
        return tuple(self.zoo.classes[number] for number in task)

    def unseen(self, count: int) -> tuple[Task, ...]:
        """So many of the unseen tasks that the report is about, or all there are."""
        return self.zoo.tasks.scored(UNSEEN_TASKS)[:count]

    def prompts(self, tasks: Sequence[Task]) -> Prompts:
        """Prompts of tasks of the data set's classes. Raises UserError for one of which the generator knows nothing."""
        prompts = self.zoo.prompts(tasks, self.prompt_texts)
        self.system.conditioner.check(prompts)
        return prompts.to(self.bench.device)

    def prompts_for(
        self,
        names: Sequence[str],
        count: int = 1,
        pictures: Pictures | None = None,
        unlabelled: Sequence[str | Path] = (),
    ) -> Prompts:
        """The prompts of a task of any classes, `told_apart`, `count` times.

        Raises UserError if the generator knows nothing of it.
        """
        task, texts = tuple(range(len(names))), self.bench.encode_prompt_texts(names)
        prompts = prompts_of([task] * count, texts, names, ordered=self.zoo.tasks.ordered)
        if isinstance(pictures, str | Path | list | tuple):
            raise UserError(f"pictures are lists of files by class: give {{{names[0]!r}: ['picture.png', ...]}}")
        if isinstance(unlabelled, str | Path):
            raise UserError(f"unlabelled pictures are a list of files: give [{str(unlabelled)!r}]")
        if pictures:
            prompts = self._with_pictures(prompts, names, pictures)
        if unlabelled:
            self._check_takes_pictures()
            prompts = replace(prompts, centre=self._features(unlabelled).mean(0).expand(count, -1))
        self.system.conditioner.check(prompts)
        return prompts.to(self.bench.device)

    def _with_pictures(self, prompts: Prompts, classes: Sequence[str], pictures: Pictures) -> Prompts:
        """Raises UserError for a conditioner that takes none, for a class that is not asked for, and for pictures that are no
        list of files; DataError as `predict`."""
        self._check_takes_pictures()
        for name, files in pictures.items():
            if name not in classes:
                hint = class_meant(name, classes)
                raise UserError(f"there are pictures of {name!r}, which is none of the classes asked for.{hint}")
            if isinstance(files, str | Path):
                raise UserError(f"pictures of {name!r}: give a list of files, as [{str(files)!r}]")
        features = torch.zeros(len(classes), self.bench.backbone.dim)  # (K, F)
        for number, name in enumerate(classes):
            if pictures.get(name):
                features[number] = self._features(pictures[name]).mean(0)
        shots = torch.tensor([len(pictures.get(name, ())) for name in classes])
        count = len(prompts.mask)
        return replace(prompts, pictures=features.expand(count, -1, -1), shots=shots.expand(count, -1))

    def _check_takes_pictures(self) -> None:
        if not self.takes_pictures:
            raise UserError(
                f"this run's conditioner {self.recipe.conditioner.name!r} goes by words alone and takes no pictures; "
                "class-prototypes does"
            )

    def _features(self, pictures: Sequence[str | Path]) -> Tensor:
        """Of picture files, as networks see them: (M, F). Raises DataError for one that cannot be read."""
        pixels = [self.bench.dataset.open_picture(Path(picture)) for picture in pictures]
        features = torch.cat([self.bench.backbone.encode(picture[None]) for picture in pixels])
        return self.zoo.scale(features)

    def knows(self, tasks: Sequence[Task]) -> bool:
        """Whether the generator's conditioner takes these tasks."""
        try:
            self.prompts(tasks)
        except UserError:
            return False
        return True

    def sample(self, tasks: Sequence[Task], rng: torch.Generator, **changes: Any) -> Tensor:
        """Generated networks (B, P) for tasks of the data set's classes; drawn as in the recipe but for `changes`."""
        settings = replace(self.recipe.generate, **changes)
        drawn = self.system.sample(self.prompts(tasks), settings, rng).cpu()
        return self.calibrated(drawn, tasks)

    def ridge(self, tasks: Sequence[Task]) -> Tensor:
        """Networks (B, P) as the report's closed-form linear map has them."""
        penalty = chosen_of(self.artifacts["evaluate"]).get("ridge_penalty")
        if penalty is None:
            raise UserError(f"this run has no opponent {RIDGE!r}; its recipe leaves it out of `against`")
        prompts = (self.zoo.prompts(which, self.prompt_texts) for which in (self.zoo.tasks.seen, tasks))
        of_zoo, asked = descriptions(*prompts, places=self.target.places)
        return self.calibrated(Ridge.fit(of_zoo, self.zoo.weights).predict(asked, penalty), tasks)

    def calibrated(self, weights: Tensor, tasks: Sequence[Task]) -> Tensor:
        """Networks (B, P) whose statistics, where the target has such, are of training images of tasks[b]."""
        if not self.target.statistics:
            return weights
        self.zoo.check(self.bench.accepted)
        return self.bench.calibrated(weights, tasks)

    def calibrated_for(self, weights: Tensor, names: Sequence[str]) -> Tensor:
        """As `calibrated`, for classes by name: where the data set lacks one, on images of all that the zoo knows."""
        classes, tasks = self.zoo.classes, self.zoo.tasks
        task = tuple(map(classes.index, names)) if set(names) <= set(classes) else tasks.classes
        return self.calibrated(weights, [task] * len(weights))

    def generate(
        self,
        classes: Sequence[str],
        *,
        pictures: Pictures | None = None,
        unlabelled: Sequence[str | Path] = (),
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
    ) -> Network:
        """Weights for these classes. What is not given is as in the recipe.

        `pictures` are a few of some or all classes, where the recipe's conditioner takes any. `unlabelled` ones are as those
        that the network is to name: they say where such pictures lie in feature space, whatever they show.

        Any names are taken. What weights are worth for classes that the generator was not trained on, `expected_accuracy`
        says.

        Raises UserError for fewer than two classes, for one named twice, and for two of which the text encoder makes one
        vector.
        """
        (network,) = self.generate_many(
            classes,
            1,
            pictures=pictures,
            unlabelled=unlabelled,
            seed=seed,
            steps=steps,
            guidance=guidance,
            temperature=temperature,
        )
        return network

    def generate_many(
        self,
        classes: Sequence[str],
        count: int,
        *,
        pictures: Pictures | None = None,
        unlabelled: Sequence[str | Path] = (),
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
    ) -> list[Network]:
        """`count` draws for one task. At temperature 0 there is only one, so more are drawn at 1 if none is given.

        Raises UserError as `generate`, and for numbers out of their range.
        """
        for name, value, least in (("count", count, 1), ("seed", seed, 0)):
            if value is not None and value < least:
                raise UserError(f"{name}: must be at least {least}, got {value}")
        names, defaults = self.told_apart(classes), self.recipe.generate
        seed = self.recipe.seed if seed is None else seed
        if temperature is None and count > 1 and defaults.temperature == 0:
            temperature = 1.0
        asked = {"steps": steps, "guidance": guidance, "temperature": temperature}
        given = {name: value for name, value in asked.items() if value is not None}
        settings = bind_section(Generate, vars(defaults) | given, "generate")
        prompts = self.prompts_for(names, count, pictures, unlabelled)
        for note in self._known_classes.notes(names, [name for name in names if (pictures or {}).get(name)]):
            self.bench.progress.say(f"note: {note}")
        if given and not self.system.generator.draws:
            self.bench.progress.say(
                f"note: {listed([*given])} {'is' if len(given) == 1 else 'are'} of no account: this run's generator "
                f"{self.recipe.generator.name!r} draws nothing"
            )
        if steps is not None and (taken := self.system.generator.steps_of(settings)) < steps:
            self.bench.progress.say(
                f"note: {counted(taken, 'step')} and not {steps:,} are taken: this run's generator "
                f"{self.recipe.generator.name!r} has no more levels of noise to go down"
            )
        try:
            drawn = self.system.sample(prompts, settings, stream(seed, "generate")).cpu()
        except Diverged as error:
            if not given:
                raise
            asked_for = " and ".join(f"{name} {value:g}" for name, value in given.items())
            raise UserError(f"with {asked_for} weights are not finite numbers: stay nearer to the recipe's") from error
        if count > 1 and (drawn - drawn[:1]).abs().max() <= ROUNDING * drawn.abs().max():
            self.bench.progress.say(
                f"note: all {count} draws are the same: this run's generator {self.recipe.generator.name!r} gave one "
                "network for the task"
            )
        shown = sum(map(len, (pictures or {}).values())) + len(unlabelled)
        as_drawn = {name: value for name, value in given.items() if name != "temperature"}
        origin = ", ".join(
            [f"{self.recipe.name}, seed {seed}, temperature {settings.temperature}"]
            + [f"{name} {value}" for name, value in as_drawn.items()]
            + [counted(shown, "picture")] * bool(shown)
        )
        as_scored = not shown and not given and count == 1
        return [
            replace(
                self.network(names, row, f"{origin}, draw {number + 1} of {count}"), pictures=shown, as_scored=as_scored
            )
            for number, row in enumerate(self.calibrated_for(drawn, names))
        ]

    def forming(
        self, classes: Sequence[str], *, pictures: Pictures | None = None, seed: int | None = None
    ) -> list[Network]:
        """The network of `generate` as it would end after each sampling step; the last one is that network.

        A generator that samples nothing gives one. Raises UserError as `generate`.
        """
        names, seed = self.told_apart(classes), self.recipe.seed if seed is None else seed
        prompts, ends = self.prompts_for(names, pictures=pictures), dict[int, Tensor]()
        ended = self.system.sample(prompts, self.recipe.generate, stream(seed, "generate"), ends.__setitem__)
        ends[max(ends, default=1)] = ended
        origin = f"{self.recipe.name}, seed {seed}, temperature {self.recipe.generate.temperature}"
        rows = self.calibrated_for(torch.cat(list(ends.values())).cpu(), names)
        return [
            self.network(names, row, f"{origin}, after step {step} of {max(ends)}")
            for step, row in zip(ends, rows, strict=True)
        ]

    def universal(self, classes: Sequence[str]) -> Network | None:
        """The run's one network for all classes, for these. None of a run whose recipe leaves it out of `against`, or whose
        target has `places`."""
        if self.target.places or UNIVERSAL not in [opponent.name for opponent in self.recipe.against]:
            return None
        return self.network(check_classes(classes), self.opponents.universal, f"{self.recipe.name}, {UNIVERSAL}")

    @property
    def takes_pictures(self) -> bool:
        """Whether `generate` takes pictures of classes: it is up to the recipe's conditioner."""
        return self.system.conditioner.takes_pictures

    @property
    def formats(self) -> tuple[str, ...]:
        """The names of exporters that there are, for `export`."""
        return tuple(self.registry.names("exporter"))

    def world(self, dataset: str) -> Workbench:
        """The pictures of another data set as this run's networks see them: by its encoders, on its scale of features.

        `dataset` is written as in a recipe. Raises RecipeError, DataError.
        """
        block = read_value(dataset, "transfer", "--dataset")
        recipe = replace(self.recipe, dataset=bind_one("dataset", block, self.registry, "--dataset"))
        return Workbench(recipe, self.bench.progress, self.bench.cache, lambda: self.zoo.dims, self.zoo.scale)

    def standings(self, classes: Sequence[str]) -> list[Standing]:
        """How each of these classes stands to those that the generator was trained on.

        A data set may have pictures of one and the run have set it apart (`tasks.unseen_classes`). A name whose
        text is that of a known class, as "Camera", is known too. Raises UserError for an empty name, and for a string in
        place of names.
        """
        return self._known_classes.standings(trimmed(classes))

    def expected_accuracy(self, classes: Sequence[str]) -> Expectation | None:
        """Of weights generated for these classes by their words, on pictures like the data set's test images.

        It is known from the tasks that the report scored, and from how their classes stand to the known ones. None for a
        report that scores too few tasks, or no accuracies; and for classes that are not known, of a report that scores none
        such. Raises UserError as `generate` for names that are no task.
        """
        return self._known_classes.expected_accuracy(check_classes(classes))

    @cached_property
    def _known_classes(self) -> KnownClasses:
        """The classes that the generator was trained on."""
        return KnownClasses(self.bench, self.zoo, self.prompt_texts, self.artifacts["evaluate"])

    def network(self, names: Sequence[str], weights: Tensor, origin: str) -> Network:
        """Weights (P,) of this run, with all that their file says of them."""
        return Network(tuple(names), self.target.exported(weights), origin, self.zoo.folder.name)

    def save_adapter(self, network: Network, folder: str | Path) -> None:
        """A new folder of LoRA adapters that stock PEFT loads onto `target.network`. Raises UserError for other weights."""
        from wspace.weights.files.peft import write_adapter

        base, texts = self.target.base_model, self.bench.templated(network.classes)
        with new_folder(Path(folder)) as made:
            write_adapter(
                made, self.target.spec, network.tensors, base_model=base, texts=texts, classes=network.classes
            )

    def export(
        self, network: Network, to: str | Mapping[str, Any], out: str | Path, *, precision: str = "float32"
    ) -> Exported:
        """Write a network, with the backbone before it, as a file or a folder for programs other than wspace.

        `to` is an exporter, by its name or as a recipe names a component. What was written is read back and tried on test
        pictures, of the network's own classes first. A file that is there is replaced. Raises UserError for a format or a
        precision that there is not and for weights of another run, MissingPackage, and WspaceError for a file that answers
        otherwise than the network and if the run's data are no longer those of its zoo; then nothing is written.
        """
        out, block = Path(out), {"use": to} if isinstance(to, str) else dict(to)
        exporter = self.exporter(block)
        written = checked(exporter, block["use"], out, precision)
        if network.zoo not in ("", self.zoo.folder.name):
            raise UserError(
                f"these weights are of another run (its zoo is {network.zoo}, and here it is {self.zoo.folder.name}): export "
                "them from that run"
            )
        self.zoo.check(self.bench.accepted)
        if exporter.suffix and out.suffix != exporter.suffix:
            self.bench.progress.say(f"note: {out} is what others call {out.with_suffix(exporter.suffix).name}")
        classifier, trial = self.classifier(network), trial_of(network, self.bench.images)
        return write(classifier, exporter, block["use"], out, written, trial, self.bench.progress)

    def exporter(self, block: Mapping[str, Any]) -> Exporter:
        """As a recipe names a component. Raises UnknownComponent, RecipeError, MissingPackage."""
        self.registry.get("exporter", str(block.get("use")))
        return bind_one("exporter", block, self.registry, "--to").build({})

    def classifier(self, network: Network) -> Classifier:
        """A network with the backbone before it, in float32 on the CPU. Raises UserError for a backbone that is no module."""
        return classifier_of(network, self.bench, self.zoo, self.about)

    def about(self, network: Network, licence: str) -> dict[str, Any]:
        """What a network is, from what text, and what it is worth, for a card. `licence` is that of the backbone."""
        expected = self.expected_accuracy(network.classes) if network.as_scored else None
        return {
            "recipe": self.recipe.name,
            "origin": network.origin,
            "pictures": network.pictures,
            "as_scored": network.as_scored,
            "zoo": self.zoo.folder.name,
            "texts": self.bench.templated(network.classes),
            "backbone": self.recipe.backbone.told(),
            "text": self.recipe.text.told(),
            "target": self.recipe.target.told(),
            "licences": {"backbone": licence},
            "expected_accuracy": None if expected is None else asdict(expected),
        }

    def load_network(self, file: str | Path) -> Network:
        """Raises FileError unless the file holds weights of this run's target."""
        return Network.load(Path(file), self.target.spec)

    def score(self, network: Network) -> dict[str, Any]:
        """Accuracy on the test images of the network's classes. Raises UserError if the data set has not all of them."""
        self.zoo.check(self.bench.accepted)
        task = self.task_of(network.classes)
        self._say_whose(network)
        predicted, labels = predict(self.target, self.flat(network), task, self.bench.test, self.bench.class_texts)
        accuracy = float((predicted[0] == labels).float().mean())
        return {"accuracy": accuracy, "images": len(labels), "classes": list(network.classes), "chance": 1 / len(task)}

    def predict(self, network: Network, pictures: Sequence[str | Path]) -> list[Prediction]:
        """Raises DataError for a picture that cannot be read, and UserError for what is no list of pictures."""
        if isinstance(pictures, str | Path):
            raise UserError(f"pictures are a list of files: give [{str(pictures)!r}]")
        if not pictures:
            return []
        self._say_whose(network)
        if wrong := [picture for picture in pictures if not isinstance(picture, str | Path)]:
            raise UserError(f"pictures are a list of files, and {type(wrong[0]).__name__} is none")
        paths = [Path(picture) for picture in pictures]
        features = self._features(paths)
        texts = self.bench.encode_classes(network.classes)
        logits = self.target.logits(self.flat(network), features[None], texts[None])[0]  # (M, K)
        return [
            Prediction(path, network.classes, tuple(row.tolist()))
            for path, row in zip(paths, logits.softmax(1), strict=True)
        ]

    def _say_whose(self, network: Network) -> None:
        """Where weights are another run's: they are of this one's shapes, and what they see may be scaled otherwise."""
        if network.zoo not in ("", self.zoo.folder.name):
            self.bench.progress.say(
                f"note: these weights are of another run (its zoo is {network.zoo}, and here it is {self.zoo.folder.name})"
            )

    def flat(self, network: Network) -> Tensor:
        """A network's tensors as one row of weights: (1, P)."""
        return self.target.spec.flatten(network.tensors)[None]  # (1, P)
