"""Names of files and folders that one room writes and another reads, each in this one place."""

from __future__ import annotations

# ---------------------------------------------------------------- a run's folder

RUN = "run.json"
RECIPE = "recipe.yaml"
STUDY = "study.json"  # of a study or a joint recipe: its members
LOCK = ".lock"
LOCK_HOLDER = ".lock-holder"  # beside a lock that is held: the process that has it
TRACKING = "tracking"  # a folder: what trackers were given, and their files
USES = "uses"  # a folder: what was studied since the run ended
REPORT = "report.json"
PAGE = "report.html"

# ---------------------------------------------------------------- an artifact's folder

MANIFEST = "artifact.json"
ELAPSED = "elapsed.json"
KEPT = "kept"  # a folder, while it is being made: hashes of what an interrupted attempt leaves for the next
SUMMARY = "summary.json"

# stage zoo
ZOO_HEADER = "zoo.json"
"""In a zoo's folder: what its networks share, and hashes of everything else (`wspace.weights.zoo.format`)."""
TASKS = "tasks.json"
WORLD = "world.json"  # classes, widths and fingerprints of what the zoo was trained on
WORLD_TENSORS = "world.safetensors"

# stage opponents
OPPONENT = "{}-{}.safetensors"  # of a method and a split
OPPONENT_OF_ALL = "{}.safetensors"  # of a method that is one network for every task
CHOSEN = "{}.chosen.json"  # of a method: what it chose on validation images

# stage train
GENERATOR = "generator.safetensors"
PROMPT_TEXTS = "said.safetensors"
"""Beside a trained generator: what it was told of classes and, where its conditioner asks, of data set and architecture."""
DRAWN_FROM_TOLD = "told.safetensors"
"""Beside those, of a conditioner that takes long over what it was told: what it drew from that."""
ZOO_MEAN = "mean.safetensors"
"""Beside a generator that takes networks in parts (`train.tokens`): the mean of those it learnt from, tensor by tensor."""
ZOO_DIRECTIONS = "directions.safetensors"
"""Beside that, where a predictor takes networks in parts: directions in which those differ, each as a row of weights."""
LOG = "log.jsonl"
CHECKPOINT = "{}.checkpoint.safetensors"  # of a phase
PRECISION = "precision.json"
"""Beside checkpoints: what a training began in, where its recipe leaves that to the machine."""

# stage generate
GENERATED = "generated-{}.safetensors"  # of a split
MISMATCHED = "mismatched-{}.safetensors"

# stage evaluate
SCORES = "scores.json"
PER_TASK = "per-task.safetensors"

# ---------------------------------------------------------------- a folder for a hub

HUB_WEIGHTS = "model.safetensors"
"""Of generated weights, alone or with the rest of their classifier beside them."""
HUB_MODEL = "model.onnx"
HUB_CONFIG = "config.json"
