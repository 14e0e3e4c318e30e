"""ONNX files, checked by onnxruntime."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from wspace.components.exporters.torch import traced
from wspace.interfaces import Answers, Classifier, Exporter, Precision
from wspace.support.errors import MissingPackage, UserError

PIXELS, PROBABILITIES = "pixels", "probabilities"
SMALL = 40_000
"""Values of a kernel that int8 leaves in float16: these are an eighth of EfficientNet-Lite0, and most of what int8 costs it."""


class Onnx(Exporter):
    """One file for any runtime of ONNX: `pixels` (N, S, S, 3) uint8 in, `probabilities` (N, K) out.

    Preprocessing lies in the graph. The metadata has `classes` and `about`, each as JSON. With precision float16 or int8 the
    backbone's matrices and kernels are stored so, int8 with a scale for each output, and small ones in float16; the head is
    stored, and everything is computed, in float32.
    """

    suffix = ".onnx"
    precisions = ("float32", "float16", "int8")

    def __init__(self, opset: Annotated[int, Ge(18)] = 18):
        self.opset = opset
        for name in ("onnx", "onnxruntime", "onnxscript"):
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise MissingPackage(
                    f"exporter 'onnx' needs the package {name}: pip install \"wspace[onnx]\""
                ) from error
        from onnx.defs import onnx_opset_version

        if opset > onnx_opset_version():
            raise UserError(
                f"exporter 'onnx': the installed onnx knows opset {onnx_opset_version()} at most, not {opset}"
            )

    def write(self, classifier: Classifier, out: Path, precision: Precision) -> None:
        import onnx

        logging.getLogger("onnxscript.optimizer").setLevel(
            logging.ERROR
        )  # else it remarks on all that it leaves as it is
        program: Any = torch.onnx.export(
            traced(classifier),
            input_names=[PIXELS],
            output_names=[PROBABILITIES],
            opset_version=self.opset,
            dynamo=True,
            verbose=False,
        )
        model = program.model_proto
        (written,) = (known.version for known in model.opset_import if not known.domain)
        if written != self.opset:  # torch goes on with its own where it cannot turn a model into another
            raise UserError(f"exporter 'onnx': this network cannot be written in opset {self.opset}, only in {written}")
        if precision != "float32":
            _store(model.graph, precision)
        facts = {"classes": list(classifier.classes), "about": classifier.about}
        onnx.helper.set_model_props(model, {k: json.dumps(v, ensure_ascii=False) for k, v in facts.items()})
        onnx.save(model, out)

    def read(self, out: Path) -> Answers:
        import onnxruntime

        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])

        def answers(pixels: np.ndarray) -> np.ndarray:
            return np.asarray(session.run([PROBABILITIES], {PIXELS: pixels})[0])

        return answers


def _store(graph: Any, precision: Precision) -> None:
    """The backbone's matrices and kernels in fewer bytes, and before all other nodes those that read them back."""
    from onnx import TensorProto, helper, numpy_helper

    outputs = {
        node.input[1]: 0 if node.op_type == "Conv" or _transposed(node) else -1
        for node in graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm") and len(node.input) > 1
    }  # name of a kernel or matrix -> the dimension its outputs are on
    kept, readers = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        small = values.ndim < 2 or values.dtype != np.float32
        if small or tensor.name not in outputs or not tensor.name.startswith("backbone."):
            kept.append(tensor)
            continue
        if precision == "float16" or values.size < SMALL:
            kept.append(numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.float16"))
            readers.append(helper.make_node("Cast", [kept[-1].name], [tensor.name], to=TensorProto.FLOAT))
            continue
        stored = f"{tensor.name}.int8"
        axis = outputs[tensor.name] % values.ndim
        others = tuple(dim for dim in range(values.ndim) if dim != axis)
        scale = np.maximum(np.abs(values).max(others, keepdims=True) / 127, np.finfo(np.float32).tiny)
        kept.append(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), stored))
        kept.append(numpy_helper.from_array(scale.reshape(-1).astype(np.float32), f"{stored}.scale"))
        readers.append(helper.make_node("DequantizeLinear", [stored, f"{stored}.scale"], [tensor.name], axis=axis))
    nodes = [*readers, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def _transposed(node: Any) -> bool:
    """Whether a Gemm takes its matrix as torch.nn.Linear keeps it, outputs first."""
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
