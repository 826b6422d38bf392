"""ONNX files."""

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from fluoroscope.errors import InputError, first_sentence
from fluoroscope.export.calibrated_network import Run

LARGEST = 2**31 - 2**20  # bytes of weights; a larger ONNX file needs a second one
INPUT, OUTPUT = "image", "probability"


def write(program: ExportedProgram, about: Mapping[str, Any], opset: int, file: Path) -> None:
    """Write one ONNX file, with any number of images per batch.

    Args:
        about: metadata; each value is stored as JSON.

    Raises:
        InputError: an operation of the backbone does not exist in ONNX, or not in this opset, or
            the weights are too large for one file.
    """
    if sum(tensor.nbytes for tensor in program.state_dict.values()) > LARGEST:
        raise InputError("the weights are larger than 2 GiB, too large for ONNX; use format=torch")
    model = _convert(program, opset)
    found = [entry.version for entry in model.opset_import if entry.domain == ""]
    if found != [opset]:  # the converter keeps its own opset if it cannot convert
        raise InputError(
            f"opset={opset}: the model cannot be written in it, only in {found}; use another opset"
        )
    _forget_source(model.graph)
    del model.functions[:]
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    file.write_bytes(model.SerializeToString())


def _convert(program: ExportedProgram, opset: int) -> Any:
    converter = logging.getLogger("onnxscript")
    level = converter.level
    converter.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = torch.onnx.export(
                program,
                (),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: "batch"}},
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise InputError(
            f"this backbone cannot be exported as ONNX ({first_sentence(error)}); use format=torch"
        ) from error
    finally:
        converter.setLevel(level)
    assert written is not None
    return written.model_proto


def _forget_source(graph: Any) -> None:
    """Remove the files and lines of the source, whose folders may name a person or a place."""
    for part in _parts(graph):
        del part.metadata_props[:]


def _parts(graph: Any) -> Iterator[Any]:
    """A graph, its nodes and values, and those of the graphs within it."""
    yield from (graph, *graph.node, *graph.initializer)
    yield from (*graph.input, *graph.output, *graph.value_info)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for inner in (attribute.g, *attribute.graphs):
            if inner.node:
                yield from _parts(inner)


def open_file(file: Path, threads: int | None = None) -> Run:
    """The model in a file, run by onnxruntime on the CPU.

    Args:
        threads: of one operation; None: one per core.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would report its use to a server
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]
