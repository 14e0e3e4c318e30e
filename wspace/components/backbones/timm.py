"""Image encoders of timm, pretrained, from a local file, from an installed package, or random."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import timm
import torch
from annotated_types import Ge
from timm.data import resolve_model_data_config
from timm.models import PretrainedCfg
from torch import Tensor, nn
from torch.nn import functional

from wspace.data.encoders.downloads import Hub, Url, find_or_download
from wspace.data.encoders.frozen import ImageEncoder, as_maps, freeze, precision_for
from wspace.data.encoders.packages import packaged
from wspace.data.encoders.timm import classifiers, current_name
from wspace.interfaces import Backbone, Layers
from wspace.support.checkpoints import check_numbers, fingerprint_of, first_misfit, read_state
from wspace.support.errors import FileError, UserError
from wspace.support.parameters import Since
from wspace.support.quantities import counted
from wspace.support.seeding import seeded

WHO = "backbone 'timm'"


def config_of(model: str) -> PretrainedCfg:
    """timm's description of a model's weights and input; its defaults where there is none."""
    return timm.get_pretrained_cfg(model) or PretrainedCfg()


def build(
    model: str,
    pretrained: bool = True,
    file: Path | None = None,
    package: str | None = None,
    size: int | None = None,
    seed: int = 0,
    classifier: bool = False,
) -> nn.Module:
    """A timm model on the CPU: pooled features, or with `classifier` the scores of its own classes.

    Weights come from `file` or `package` if given, else the pretrained ones, else from `seed`.
    """
    if file is not None and package is not None:
        raise UserError(f"{WHO}: 'file' and 'package' are both set: keep one")
    model = current_name(WHO, model)
    config = config_of(model)
    options: dict[str, Any] = {"img_size": size} if size is not None and config.fixed_input_size else {}
    try:
        if package is not None:
            return _from_state(model, packaged(WHO, model, package), f"package {package}", options, seed, classifier)
        if file is not None:
            return _from_state(model, read_state(file), str(file), options, seed, classifier)
        if pretrained:
            options |= {"pretrained": True, "pretrained_cfg_overlay": _downloaded(model, config)}
        if not classifier:
            options["num_classes"] = 0
        with seeded(seed):
            built: Any = timm.create_model(model, **options)
        built.pretrained_cfg.pop("state_dict", None)  # a second copy of all weights
        return built
    except TypeError as error:
        if "img_size" in options and "img_size" in str(error):
            only = config.input_size[-1]
            raise UserError(f"{WHO} {model}: it takes images of {only} pixels alone: leave 'size' out") from error
        raise


def _downloaded(model: str, config: PretrainedCfg) -> dict[str, Any]:
    """What to change in timm's own configuration so that it reads the file found or downloaded."""
    who = f"{WHO} {model}"
    if config.hf_hub_id:
        name = config.hf_hub_filename
        files = (Path(name).with_suffix(".safetensors").as_posix(), name) if name else ()
        source: Hub | Url = Hub(config.hf_hub_id, files or ("model.safetensors", "pytorch_model.bin"))
    elif config.url:
        url = config.url if isinstance(config.url, str) else config.url[0]
        source = Url(url, Path(torch.hub.get_dir()) / "checkpoints")
    else:
        raise UserError(f"{who}: nobody has published weights for it: give 'file: PATH', or set 'pretrained: false'")
    path = find_or_download(source, who, "give 'file: PATH', or set 'pretrained: false'")
    if isinstance(source, Url) and config.custom_load:
        return {"file": str(path), "custom_load": True}
    return {"state_dict": read_state(path), "custom_load": False}


def _from_state(
    model: str, state: dict[str, Tensor], origin: str, options: dict[str, Any], seed: int, classifier: bool
) -> nn.Module:
    """timm with these weights, every one of them used. Raises FileError."""
    heads = classifiers(model)
    rows = [len(state[f"{h}.weight"]) for h in [*heads, "head", "fc", "classifier"] if f"{h}.weight" in state]
    misfit: Exception | None = None
    # timm loads strictly only if told the number of classes in the file, which may have no classifier.
    for classes in rows[:1] or [0, config_of(model).num_classes]:
        overlay = {"state_dict": dict(state), "num_classes": classes, "label_offset": 0, "custom_load": False}
        try:
            with seeded(seed), _every_tensor(origin):
                built: Any = timm.create_model(
                    model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **options
                )
        except (RuntimeError, KeyError, IndexError, ValueError) as error:
            misfit = misfit or error
            continue
        if classes and not classifier:
            built.reset_classifier(0)
        built.pretrained_cfg.pop("state_dict", None)  # a second copy of all weights
        return built
    raise FileError(f"{origin}: its tensors do not fit {model}{first_misfit(misfit)}") from misfit


@contextmanager
def _every_tensor(origin: str) -> Iterator[None]:
    """While it lasts, loading is strict: timm itself leaves out what does not fit in some models, as in dla34."""
    load = nn.Module.load_state_dict

    def strictly(self: nn.Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        check_numbers(origin, state_dict, self.state_dict())
        return load(self, state_dict, strict=True, assign=assign)

    nn.Module.load_state_dict = strictly
    try:
        yield
    finally:
        nn.Module.load_state_dict = load


class TimmBackbone(Backbone):
    """Any timm model, frozen, giving its pooled features; or with `stages`, what its last so many stages see.

    Weights: `file` (a checkpoint) or `package` (an installed distribution that carries them) if given;
    else the pretrained ones, from the hub's cache or downloaded; with `pretrained: false`, random ones
    from `seed`. Images are resized to `size`; without it they are used as they come, or at the model's
    size if that is fixed.

    Of each of these stages the mean and the largest value of every channel over the picture are features, brought to one
    size. Early stages see shapes that the last one has turned into classes of photographs: worth it for drawings.
    """

    def __init__(
        self,
        model: str = "resnet18",
        pretrained: bool = True,
        file: Path | None = None,
        package: str | None = None,
        size: Annotated[int, Ge(16)] | None = None,
        batch: Annotated[int, Ge(1)] = 64,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        seed: int = 0,
        stages: Annotated[Annotated[int, Ge(1)] | None, Since("0.2")] = None,
        *,
        device: torch.device,
    ):
        model = current_name(WHO, model)
        self._network = network = freeze(build(model, pretrained, file, package, size, seed), device)
        config: dict[str, Any] = resolve_model_data_config(network)
        native = config["input_size"][-1]
        fixed = config_of(model).fixed_input_size
        resize = size if size is not None else native if fixed else None
        used = precision_for(precision, device)
        self._features = network if stages is None else Stages(network, model, stages)
        self._encode = ImageEncoder(self._features, config["mean"], config["std"], resize, batch, used, device)
        try:
            self.dim = self._encode.dim(resize or native)
        except (UserError, RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{WHO} {model}: no features at {resize or native} pixels: {reason}") from error
        self.licence = _licence(model, pretrained, file, package)
        facts = ("timm", model, config["mean"], config["std"], resize, used)
        self.fingerprint = fingerprint_of(network.state_dict(), *facts, *([] if stages is None else [stages]))

    def encode(self, pixels: np.ndarray) -> Tensor:
        return self._encode(pixels)

    def layers(self) -> Layers:
        network = self._network
        return Layers(network, self._features, self._encode.prepare, maps_of(network), stages_of(network))

    def module(self) -> nn.Module:
        return self._encode.module(self._network)


def _licence(model: str, pretrained: bool, file: Path | None, package: str | None) -> str:
    """Of the weights, as the package that carries them or timm has it."""
    if package is not None:
        about = importlib.metadata.metadata(package)
        named = (about[key] for key in ("License-Expression", "License") if key in about)
        return next((name for name in named if name != "UNKNOWN"), "unknown")  # so packaging writes that there is none
    return (config_of(model).license or "unknown") if pretrained and file is None else "unknown"


class Stages(nn.Module):
    """Features of a timm model's last stages: pictures (M, 3, S, S) -> (M, 2 * their channels together).

    Raises UserError for a model that has not so many, or gives none of its maps.
    """

    def __init__(self, network: nn.Module, model: str, stages: int):
        super().__init__()
        many = len(getattr(network, "feature_info", []))
        if not hasattr(network, "forward_intermediates") or not many:
            raise UserError(f"{WHO} {model}: timm does not give the maps of its stages: leave 'stages' out")
        if stages > many:
            raise UserError(f"{WHO} {model}: it has {counted(many, 'stage')}, and 'stages' is {stages}")
        self.network, self.stages = network, stages

    def forward(self, x: Tensor) -> Tensor:
        network: Any = self.network
        maps = network.forward_intermediates(x, indices=self.stages, output_fmt="NCHW", intermediates_only=True)
        seen = (values for of_stage in maps for values in (of_stage.mean((2, 3)), of_stage.amax((2, 3))))
        return torch.cat([functional.rms_norm(values.float(), values.shape[1:]) for values in seen], dim=1)


def stages_of(network: nn.Module) -> tuple[str, ...]:
    """Names of the layers that end a stage of a timm model.

    Of a transformer the last block's first normalisation alone: behind it, tokens that are not pooled have no gradient.
    """
    layers, infos = dict(network.named_modules()), getattr(network, "feature_info", [])
    names: list[str] = [info["module"] for info in infos if info["module"] in layers]
    last = f"{names[-1]}.norm1" if names else ""
    return (last,) if last in layers else tuple(names)


def maps_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """`Layers.maps` of a timm model, which knows its order of dimensions, and its tokens that are of no place."""
    prefix: int = getattr(network, "num_prefix_tokens", 0)
    return partial(as_maps, prefix=prefix, channels_last=getattr(network, "output_fmt", None) == "NHWC")
