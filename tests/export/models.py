"""Networks with several labels, for the files of an export."""

import numpy as np
import torch

from fluoroscope.export import onnx_file, torch_file
from fluoroscope.export.calibrated_network import CalibratedNetwork, trace
from fluoroscope.model.backbone import make_backbone
from fluoroscope.model.head import Head
from fluoroscope.trained.calibration import Calibration, LabelCalibration
from fluoroscope.trained.loading import Network

TEMPERATURES = {"Mass": 0.5, "Effusion": 1.0, "Nodule/Mass": 3.0}

ABOUT = {
    "labels": list(TEMPERATURES),
    "image_px": 48,
    "operating_points": {label: {"youden": 0.5, "sensitivity_95": None} for label in TEMPERATURES},
}


def calibration_of(temperatures=TEMPERATURES):
    labels = {
        name: LabelCalibration(t, (1.0, 0.0), 50, 20, {"youden": 0.25}, {"youden": 0.25})
        for name, t in temperatures.items()
    }
    return Calibration(labels, "0" * 16, "1" * 16, {})


def network_of(name="test_efficientnet", image_px=48, **keys):
    """With random weights, and statistics of batch norm that are not those of the start."""
    torch.manual_seed(0)
    backbone = make_backbone(name, "none", image_px=image_px, **keys)
    network = Network(backbone, Head(backbone.num_features, len(TEMPERATURES), width=31))
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(torch.from_numpy(pixels(8, image_px, seed)))
        network.head.out.weight.mul_(20)  # so that images differ
    return network.eval().requires_grad_(False)


def pixels(images, image_px=48, seed=0):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.2, 1, (images, 1, 1, 1))
    return (scale * rng.integers(0, 256, (images, 1, image_px, image_px))).astype(np.uint8)


def expected(network, images):
    """The closed form in numpy, float64, from the logits of the network."""
    with torch.no_grad():
        logits = network(torch.from_numpy(images)).double().numpy()
    return 1 / (1 + np.exp(-logits / np.array(list(TEMPERATURES.values()))))


def traced(network, image_px=48):
    return trace(CalibratedNetwork(network, calibration_of()).eval(), image_px)


def write(program, folder, kind, opset=18):
    file = folder / f"model.{'pt2' if kind == 'torch' else kind}"
    if kind == "onnx":
        onnx_file.write(program, ABOUT, opset, file)
    else:
        torch_file.write(program, ABOUT, file)
    return file
