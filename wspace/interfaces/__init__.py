"""The contracts of every kind of component. One abstract class per kind; implementations are final.

A component's constructor is its schema: positional parameters are set by the recipe (annotated with the closed list of
`wspace.recipes.signature`), keyword-only parameters are given by the run (`wspace.recipes.registry.GIVEN`). Randomness
comes only through the generator passed in as `rng`. This package may import `support` alone.

Letters in shapes, everywhere:
    B  networks or tasks of a batch      P  weights of one network, flattened
    N  tokens of one network             D  values of one token
    K  classes of a task                 M  images
    F  width of image features           T  width of text features
    L  condition tokens                  C  width of a condition token
"""

from wspace.interfaces.conditions import PICTURE, PICTURE_SIDE, Condition, Conditioner, Prompts, Told
from wspace.interfaces.data import (
    TEST,
    TRAIN,
    VAL,
    Backbone,
    ClassStatistics,
    Dataset,
    Images,
    Layers,
    Shots,
    Task,
    Text,
    Wording,
)
from wspace.interfaces.engines import Engine
from wspace.interfaces.exporting import Answers, Classifier, Exporter, Precision
from wspace.interfaces.fusions import Fusion
from wspace.interfaces.generators import Closed, Denoiser, Discriminator, Generator, Moves, Pairs, Predictor
from wspace.interfaces.importing import Collection, Description, ImportedNetwork, Importer
from wspace.interfaces.metrics import Metric, Outcome
from wspace.interfaces.opponents import Contest, Evidence, Fit, Opponent
from wspace.interfaces.symmetry import Part, Symmetry
from wspace.interfaces.targets import Architecture, Target, cross_entropy
from wspace.interfaces.tokens import CODES, Span, Tokenizer, TokenLayout, UnitTokens
from wspace.interfaces.tracking import Tracker
from wspace.interfaces.weights import Product, WeightEntry, WeightSpec

__all__ = [
    "CODES", "PICTURE", "PICTURE_SIDE", "TEST", "TRAIN", "VAL", "Answers", "Architecture", "Backbone",
    "ClassStatistics", "Classifier", "Closed", "Collection", "Condition", "Conditioner", "Contest", "Dataset",
    "Denoiser", "Description", "Discriminator", "Engine", "Evidence", "Exporter", "Fit", "Fusion", "Generator", "Images",
    "ImportedNetwork", "Importer", "Layers", "Metric", "Moves", "Opponent", "Outcome", "Pairs", "Part", "Precision",
    "Predictor", "Product", "Prompts", "Shots", "Span", "Symmetry", "Target", "Task", "Text", "TokenLayout",
    "Tokenizer", "Told", "Tracker", "UnitTokens", "WeightEntry", "WeightSpec", "Wording", "cross_entropy",
]  # fmt: skip
