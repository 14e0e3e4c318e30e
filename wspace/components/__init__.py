"""The built-in components and commands, registered as any plugin registers its own.

X of kind K lives in `wspace/components/Ks/X.py`.
A kind may import `learning` and every room below it; no kind knows another, and none knows a recipe or a run.
"""

from __future__ import annotations

from wspace import AddCommand, Register, hookimpl


@hookimpl
def wspace_register(register: Register) -> None:
    register("dataset", "icons", "wspace.components.datasets.icons:Icons", example={"concepts": 4, "renderings": 1})
    register("dataset", "folder", "wspace.components.datasets.folder:Folder", example={"path": "pictures"})
    register(
        "dataset",
        "timm",
        "wspace.components.datasets.timm:TimmDataset",
        example={"name": "torch/image_folder", "path": "pictures", "test": None, "size": 32},
    )

    register(
        "dataset",
        "idx",
        "wspace.components.datasets.idx:Idx",
        example={"path": "idx", "classes": ["disc", "bar", "check"]},
    )
    register("dataset", "sklearn", "wspace.components.datasets.sklearn:Sklearn")

    register("backbone", "timm", "wspace.components.backbones.timm:TimmBackbone", example={"pretrained": False})
    register(
        "backbone",
        "open_clip",
        "wspace.components.backbones.open_clip:OpenClipBackbone",
        example={"model": "ViT-S-32-alt", "pretrained": None},
    )
    register("backbone", "pixels", "wspace.components.backbones.pixels:Pixels", example={"side": 4})

    register("text", "minilm", "wspace.components.texts.minilm:MiniLM")
    register(
        "text",
        "open_clip",
        "wspace.components.texts.open_clip:OpenClipText",
        example={"model": "ViT-S-32-alt", "pretrained": None},
    )

    register("wording", "template", "wspace.components.wordings.template:Template")
    register("wording", "descriptions", "wspace.components.wordings.descriptions:Descriptions")

    register("architecture", "mlp", "wspace.components.architectures.mlp:MLP", example={"hidden": [5], "norm": "batch"})
    register("architecture", "cnn", "wspace.components.architectures.cnn:CNN", example={"channels": [4, 5]})
    register("architecture", "timm", "wspace.components.architectures.timm:TimmModel", example={"patch": 8})

    register("target", "lora", "wspace.components.targets.lora:Lora", example={"rank": 2, "depth": 1})
    register(
        "target",
        "module",
        "wspace.components.targets.module:Module",
        example={"architecture": {"use": "mlp", "hidden": [5], "norm": "batch"}},
    )

    register("symmetry", "sign-permutation", "wspace.components.symmetries.sign_permutation:SignPermutation")
    register("symmetry", "gl", "wspace.components.symmetries.gl:GL")
    register("symmetry", "none", "wspace.components.symmetries.none:Trivial")

    register("tokenizer", "chunk", "wspace.components.tokenizers.chunk:Chunk", example={"size": 16})
    register("tokenizer", "neuron", "wspace.components.tokenizers.neuron:Neuron")
    register("tokenizer", "units", "wspace.components.tokenizers.units:Units")

    register("conditioner", "class-prototypes", "wspace.components.conditioners.class_prototypes:ClassPrototypes")
    register("conditioner", "text-list", "wspace.components.conditioners.text_list:TextList", example={"places": 6})
    register("conditioner", "text-set", "wspace.components.conditioners.text_set:TextSet")

    register(
        "generator",
        "diffusion",
        "wspace.components.generators.diffusion:Diffusion",
        example={"denoiser": {"use": "mlp", "width": 16, "depth": 1}},
    )
    register(
        "generator",
        "flow",
        "wspace.components.generators.flow:Flow",
        example={"denoiser": {"use": "mlp", "width": 16, "depth": 1}},
    )
    register("generator", "predicted", "wspace.components.generators.predicted:Predicted")
    register("generator", "ridge", "wspace.components.generators.ridge:Ridge")
    register(
        "generator",
        "hypernetwork",
        "wspace.components.generators.hypernetwork:Hypernetwork",
        example={"width": 16, "learns": "weights"},
    )
    register("denoiser", "by-token", "wspace.components.denoisers.by_token:ByToken", example={"width": 16, "depth": 1})
    register("denoiser", "mlp", "wspace.components.denoisers.mlp:MLP", example={"width": 16, "depth": 1})
    register(
        "denoiser",
        "neural-graph",
        "wspace.components.denoisers.neural_graph:NeuralGraph",
        example={"width": 16, "depth": 1, "heads": 2},
    )

    register("predictor", "linear", "wspace.components.predictors.linear:Linear")
    register("predictor", "by-place", "wspace.components.predictors.by_place:ByPlace")
    register("predictor", "directions", "wspace.components.predictors.directions:Directions")
    register("predictor", "offset", "wspace.components.predictors.offset:Offset")

    register("fusion", "average", "wspace.components.fusions.average:Average")
    register("fusion", "git-rebasin", "wspace.components.fusions.git_rebasin:GitRebasin")
    register("fusion", "slerp", "wspace.components.fusions.slerp:Slerp")
    register("fusion", "task-arithmetic", "wspace.components.fusions.task_arithmetic:TaskArithmetic")
    register("fusion", "ties", "wspace.components.fusions.ties:Ties")

    register("opponent", "oracle", "wspace.components.opponents.oracle:Oracle")
    register("opponent", "universal", "wspace.components.opponents.universal:Universal")
    register("opponent", "last-layer", "wspace.components.opponents.last_layer:LastLayer")
    register(
        "opponent", "few-pictures", "wspace.components.opponents.few_pictures:FewPictures", example={"pictures": 2}
    )
    register(
        "opponent", "more-pictures", "wspace.components.opponents.more_pictures:MorePictures", example={"pictures": 3}
    )
    register("opponent", "text-prototype", "wspace.components.opponents.text_prototype:TextPrototype")
    register("opponent", "eszsl", "wspace.components.opponents.eszsl:Eszsl")
    register("opponent", "nearest-mean", "wspace.components.opponents.nearest_mean:NearestMean")
    register("opponent", "shrunk-mean", "wspace.components.opponents.shrunk_mean:ShrunkMean")
    register("opponent", "logistic", "wspace.components.opponents.logistic:Logistic")
    register("opponent", "tip-linear", "wspace.components.opponents.tip_linear:TipLinear")
    register("opponent", "base", "wspace.components.opponents.base:Base")
    register("opponent", "zoo-mean", "wspace.components.opponents.zoo_mean:ZooMean")
    register("opponent", "retrieval", "wspace.components.opponents.retrieval:Retrieval")
    register("opponent", "ridge", "wspace.components.opponents.ridge:Ridge")
    register("opponent", "aligned-soup", "wspace.components.opponents.aligned_soup:AlignedSoup")
    register("opponent", "gaussian", "wspace.components.opponents.gaussian:Gaussian")
    register("opponent", "pca-gaussian", "wspace.components.opponents.pca_gaussian:PcaGaussian")
    register("opponent", "noise", "wspace.components.opponents.noise:Noise")
    register("opponent", "random", "wspace.components.opponents.random:Random")
    register("opponent", "mismatched", "wspace.components.opponents.mismatched:Mismatched")

    register("metric", "accuracy", "wspace.components.metrics.accuracy:Accuracy")
    register("metric", "weight_mse", "wspace.components.metrics.weight_mse:WeightMSE")

    register("importer", "checkpoints", "wspace.components.importers.checkpoints:Checkpoints")
    register("importer", "peft", "wspace.components.importers.peft:Peft")

    register("exporter", "onnx", "wspace.components.exporters.onnx:Onnx")
    register("exporter", "torch", "wspace.components.exporters.torch:TorchProgram")
    register("exporter", "timm", "wspace.components.exporters.timm:TimmFolder")
    register("exporter", "transformers", "wspace.components.exporters.transformers:TransformersFolder")
    register("exporter", "huggingface", "wspace.components.exporters.huggingface:HubFolder")

    register("tracker", "jsonl", "wspace.components.trackers.jsonl:Jsonl")
    register("tracker", "tensorboard", "wspace.components.trackers.tensorboard:TensorBoard")
    register("tracker", "trackio", "wspace.components.trackers.trackio:Trackio")
    register("tracker", "wandb", "wspace.components.trackers.wandb:Wandb")

    register("engine", "local", "wspace.components.engines.local:Local", example={"workers": 2})


@hookimpl
def wspace_commands(add: AddCommand) -> None:
    add("run", "wspace.cli.run:run")
    add("check", "wspace.cli.run:check")
    add("plan", "wspace.cli.run:plan")
    add("ls", "wspace.cli.run:list_recipes")
    add("cp", "wspace.cli.run:cp")
    add("new-recipe", "wspace.cli.new_recipe:new_recipe")
    add("report", "wspace.cli.run:report")
    add("doctor", "wspace.cli.doctor:doctor")
    add("list", "wspace.cli.components:list_components")
    add("show", "wspace.cli.components:show")
    add("plugins", "wspace.cli.components:plugins")
    add("new-plugin", "wspace.cli.components:new_plugin")
    add("generate", "wspace.cli.heads:generate")
    add("score", "wspace.cli.heads:score")
    add("predict", "wspace.cli.heads:predict")
    add("export", "wspace.cli.export:export")
    add("init", "wspace.cli.uses:initialise")
    add("enhance", "wspace.cli.uses:enhance")
    add("ensemble", "wspace.cli.uses:ensemble")
    add("plot", "wspace.cli.uses:plot")
    add("fuse", "wspace.cli.uses:fuse")
    add("interpolate", "wspace.cli.uses:interpolate")
    add("coherence", "wspace.cli.uses:coherence")
    add("transfer", "wspace.cli.uses:transfer")
    add("expectation", "wspace.cli.uses:expectation")
    add("spec", "wspace.cli.spec:spec")
    add("bench", "wspace.cli.bench:app")
    add("zoo", "wspace.cli.zoo:app")
    add("push", "wspace.cli.hub:push")
    add("pull", "wspace.cli.hub:pull")
