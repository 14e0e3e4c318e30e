"""All that a plugin needs: the contracts of the kinds, and the machinery of the core that components are built on.

Public for third parties, with `wspace` and `wspace.testing`, and nothing else is; `docs/stability.md` says for how long.
Nothing inside wspace imports this module. It imports torch: name it in the modules of components, not in the one that
registers them.

Contracts, an abstract class per kind: `Architecture`, `Backbone`, `Conditioner`, `Dataset`, `Denoiser`, `Discriminator`,
    `Engine`, `Exporter`, `Fusion`, `Generator`, `Importer`, `Metric`, `Opponent`, `Predictor`, `Symmetry`, `Target`, `Text`,
    `Tokenizer`, `Tracker`, `Wording`.
What they are given and give: `ClassStatistics`, `Closed`, `Condition`, `Contest`, `Evidence`, `Fit`, `Generate`, `Images`,
    `Layers`, `Moves`, `Outcome`, `Pairs`, `Part`, `Product`, `Prompts`, `Shots`, `Span`, `Task`, `TokenLayout`, `Told`,
    `UnitTokens`, `WeightEntry`, `WeightSpec`; the splits `TRAIN`, `VAL`, `TEST`; `CODES`, `PICTURE`, `PICTURE_SIDE`.
Pictures of a data set: `StoredImages`, `open_picture`; its identity: `fingerprint`.
Constructors: a component as default, `Default`, and `built`, which makes it in plain Python; `Since`, the version that a new
    parameter came with.
Many networks at once: their linear maps, `affine`; their scores, `cosine_scores`; fresh weights, `uniform_by_fan_in`.
Denoisers: `sinusoids`. Scales of tokens and codes: `Scale`, `fit_scale`, `spread_of`. Random streams: `seeded`, `stream`.
Symmetries of any module: `infer`, `Inferred`, `weights_of`, `prove_module`, `read_spec`, `AxisPermutations`.
Matching of two networks: `match`, `match_activations`, `move`, `Move`, `straight_line`, `MeanLoss`.
Zoos and runs: `StoredZoo`, `Run`; a run's `Network`; where it looks in pictures, `attention`, an `Attention` each. Importers: a
    `Collection` of `ImportedNetwork`, each with its `Description`; `Sidecars`, the descriptions that lie beside files as
    docs/zoo-format.md says. Exporters: a `Classifier`, of a `Precision`; what is written gives `Answers`.
Commands: `RunFolder`, `PluginFiles` and `Json`, arguments and options as all commands have them; `open_run`; a `Section` of
    the run's report, of `Table` (a `Row` for each line) and `Figure`; `show_section`.
Errors, each one sentence to the user: `UserError`; of it, `DataError` (bad pictures or classes) and `FileError`; all are a
    `WspaceError`.
"""

from __future__ import annotations

from wspace.cli.options import Json, PluginFiles, RunFolder, open_run, show_section
from wspace.data.pictures import StoredImages, open_picture
from wspace.interfaces import (
    CODES,
    PICTURE,
    PICTURE_SIDE,
    TEST,
    TRAIN,
    VAL,
    Answers,
    Architecture,
    Backbone,
    Classifier,
    ClassStatistics,
    Closed,
    Collection,
    Condition,
    Conditioner,
    Contest,
    Dataset,
    Denoiser,
    Description,
    Discriminator,
    Engine,
    Evidence,
    Exporter,
    Fit,
    Fusion,
    Generator,
    Images,
    ImportedNetwork,
    Importer,
    Layers,
    Metric,
    Moves,
    Opponent,
    Outcome,
    Pairs,
    Part,
    Precision,
    Predictor,
    Product,
    Prompts,
    Shots,
    Span,
    Symmetry,
    Target,
    Task,
    Text,
    Tokenizer,
    TokenLayout,
    Told,
    Tracker,
    UnitTokens,
    WeightEntry,
    WeightSpec,
    Wording,
)
from wspace.learning.denoising import sinusoids
from wspace.runs.report.section import Figure, Row, Section, Table
from wspace.runs.run import Run
from wspace.support.errors import DataError, FileError, UserError, WspaceError
from wspace.support.fingerprint import of_json as fingerprint
from wspace.support.parameters import Default, Since, built
from wspace.support.seeding import seeded, stream
from wspace.support.settings import Generate
from wspace.uses.attention import Attention, attention
from wspace.weights.batched import affine, cosine_scores, uniform_by_fan_in
from wspace.weights.files.network import Network
from wspace.weights.matching.activations import match_activations
from wspace.weights.matching.barrier import MeanLoss, straight_line
from wspace.weights.matching.by_weights import Move, match, move
from wspace.weights.permutations import AxisPermutations
from wspace.weights.scaling import Scale, fit_scale, spread_of
from wspace.weights.tracing.infer import Inferred, infer, weights_of
from wspace.weights.tracing.module_proof import prove_module
from wspace.weights.tracing.spec_file import read_spec
from wspace.weights.zoo.format import StoredZoo
from wspace.weights.zoo.sidecars import Sidecars

__all__ = [
    "CODES", "PICTURE", "PICTURE_SIDE", "TEST", "TRAIN", "VAL", "Answers", "Architecture", "Attention", "AxisPermutations",
    "Backbone", "ClassStatistics", "Classifier", "Closed", "Collection", "Condition", "Conditioner", "Contest",
    "DataError", "Dataset", "Default", "Denoiser", "Description", "Discriminator", "Engine", "Evidence", "Exporter", "Figure",
    "FileError", "Fit", "Fusion", "Generate", "Generator", "Images", "ImportedNetwork", "Importer", "Inferred",
    "Json", "Layers", "MeanLoss", "Metric", "Move", "Moves", "Network", "Opponent", "Outcome", "Pairs", "Part", "PluginFiles",
    "Precision", "Predictor", "Product", "Prompts", "Row", "Run", "RunFolder", "Scale", "Section", "Shots",
    "Sidecars", "Since", "Span", "StoredImages", "StoredZoo", "Symmetry", "Table", "Target", "Task", "Text", "TokenLayout",
    "Tokenizer", "Told", "Tracker", "UnitTokens", "UserError", "WeightEntry", "WeightSpec", "Wording", "WspaceError", "affine",
    "attention", "built", "cosine_scores", "fingerprint", "fit_scale", "infer", "match", "match_activations", "move",
    "open_picture", "open_run", "prove_module", "read_spec", "seeded", "show_section", "sinusoids", "spread_of",
    "straight_line", "stream", "uniform_by_fan_in", "weights_of",
]  # fmt: skip
