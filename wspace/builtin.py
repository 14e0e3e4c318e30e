"""The built-in components, registered as any plugin registers its own. Built-in X of kind K lives in wspace/Ks/X.py."""

from __future__ import annotations

from wspace import hookimpl
from wspace.hookspecs import Register


@hookimpl
def wspace_register(register: Register) -> None:
    register("dataset", "icons", "wspace.datasets.icons:Icons", example={"concepts": 4, "renderings": 1})
    register("dataset", "folder", "wspace.datasets.folder:Folder", example={"path": "pictures"})
    register(
        "dataset",
        "timm",
        "wspace.datasets.timm:TimmDataset",
        example={"name": "torch/image_folder", "path": "pictures", "test": None, "size": 32},
    )

    register("backbone", "timm", "wspace.backbones.timm:TimmBackbone", example={"pretrained": False})
    register(
        "backbone",
        "open_clip",
        "wspace.backbones.open_clip:OpenClipBackbone",
        example={"model": "ViT-S-32-alt", "pretrained": None},
    )
    register("backbone", "pixels", "wspace.backbones.pixels:Pixels", example={"side": 4})

    register("text", "minilm", "wspace.texts.minilm:MiniLM")
    register(
        "text",
        "open_clip",
        "wspace.texts.open_clip:OpenClipText",
        example={"model": "ViT-S-32-alt", "pretrained": None},
    )

    register("wording", "template", "wspace.wordings.template:Template")
    register("wording", "descriptions", "wspace.wordings.descriptions:Descriptions")

    register("architecture", "mlp", "wspace.architectures.mlp:MLP", example={"hidden": [5], "norm": "batch"})
    register("architecture", "cnn", "wspace.architectures.cnn:CNN", example={"channels": [4, 5]})
    register("architecture", "timm", "wspace.architectures.timm:TimmModel", example={"patch": 8})

    register("target", "clip-adapter", "wspace.targets.clip_adapter:ClipAdapter", example={"rank": 4})
    register("target", "lora", "wspace.targets.lora:Lora", example={"rank": 2, "depth": 1})
    register(
        "target",
        "module",
        "wspace.targets.module:Module",
        example={"architecture": {"use": "mlp", "hidden": [5], "norm": "batch"}},
    )

    register("symmetry", "permutation", "wspace.symmetries.permutation:Permutation")
    register("symmetry", "sign-permutation", "wspace.symmetries.sign_permutation:SignPermutation")
    register("symmetry", "gl", "wspace.symmetries.gl:GL")
    register("symmetry", "none", "wspace.symmetries.none:Trivial")

    register("tokenizer", "chunk", "wspace.tokenizers.chunk:Chunk", example={"size": 16})
    register("tokenizer", "neuron", "wspace.tokenizers.neuron:Neuron")

    register("conditioner", "text-set", "wspace.conditioners.text_set:TextSet")

    register(
        "generator",
        "diffusion",
        "wspace.generators.diffusion:Diffusion",
        example={"denoiser": {"use": "mlp", "width": 16, "depth": 1}},
    )
    register(
        "generator",
        "flow",
        "wspace.generators.flow:Flow",
        example={"denoiser": {"use": "mlp", "width": 16, "depth": 1}},
    )
    register("generator", "ridge", "wspace.generators.ridge:Ridge")
    register(
        "generator",
        "hypernetwork",
        "wspace.generators.hypernetwork:Hypernetwork",
        example={"width": 16, "learns": "weights"},
    )
    register("denoiser", "mlp", "wspace.denoisers.mlp:MLP", example={"width": 16, "depth": 1})

    register("predictor", "linear", "wspace.predictors.linear:Linear")
    register("discriminator", "mlp", "wspace.discriminators.mlp:MLP", example={"width": 16})

    register("fusion", "average", "wspace.fusions.average:Average")
    register("fusion", "git-rebasin", "wspace.fusions.git_rebasin:GitRebasin")
    register("fusion", "slerp", "wspace.fusions.slerp:Slerp")
    register("fusion", "task-arithmetic", "wspace.fusions.task_arithmetic:TaskArithmetic")
    register("fusion", "ties", "wspace.fusions.ties:Ties")

    register("metric", "accuracy", "wspace.metrics.accuracy:Accuracy")
    register("metric", "weight_mse", "wspace.metrics.weight_mse:WeightMSE")
