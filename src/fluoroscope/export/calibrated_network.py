"""The network that is exported: from pixels to calibrated probabilities."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from fluoroscope.commands import called
from fluoroscope.errors import InputError, first_sentence
from fluoroscope.trained.calibration import LARGEST, Calibration
from fluoroscope.trained.loading import Network

Run = Callable[[np.ndarray], np.ndarray]  # uint8 [B, 1, S, S] to float32 [B, K]


class CalibratedNetwork(nn.Module):
    """Network and temperature; the scaling of the pixels is a part of the network.

    Args:
        network: of `trained.loading.open_trained`, in evaluation mode, on the CPU.
        calibration: of the same weights.
    """

    temperature: Tensor

    def __init__(self, network: Network, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        temperatures = [label.temperature for label in calibration.labels.values()]
        self.register_buffer("temperature", torch.tensor(temperatures, dtype=torch.float32))

    def forward(self, image: Tensor) -> Tensor:
        """uint8 `[B, 1, S, S]` to float32 `[B, K]`."""
        logits = self.network(image).clamp(-LARGEST, LARGEST)  # as `calibration.calibrated`
        return torch.sigmoid(logits / self.temperature)


def trace(network: CalibratedNetwork, image_px: int) -> ExportedProgram:
    """The computation as a graph, for any number of images of this size.

    Two blank images stand for the input, so that no image of a patient is stored.

    Raises:
        InputError: PyTorch cannot trace this backbone.
    """
    blank = torch.zeros(2, 1, image_px, image_px, dtype=torch.uint8)
    try:
        with torch.no_grad():
            program = export(network, (blank,), dynamic_shapes={"image": {0: Dim("batch")}})
    except Exception as error:  # of any type, by the backbone
        raise InputError(
            f"this backbone cannot be exported: PyTorch cannot trace it ({first_sentence(error)}); "
            f"use {called('predict')}, which runs the checkpoint itself"
        ) from error
    _forget_source(program.graph_module)
    return program


def _forget_source(graph: nn.Module) -> None:
    """Remove the files and lines of the source, whose folders may name a person or a place."""
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)


def runner(module: Callable[[Tensor], Tensor]) -> Run:
    """A module as a function of arrays, without gradients."""

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run
