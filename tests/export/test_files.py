import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fluoroscope.config.export import OPSETS
from fluoroscope.errors import InputError
from fluoroscope.export import onnx_file
from fluoroscope.export.calibrated_network import CalibratedNetwork, trace
from fluoroscope.trained.calibration import calibrated
from tests.export.models import ABOUT, calibration_of, expected, network_of, pixels, traced, write

CLOSE = 2e-5


def run(file, images):
    if file.suffix == ".onnx":
        return onnxruntime.InferenceSession(file).run(None, {"image": images})[0]
    return torch.export.load(file).module()(torch.from_numpy(images)).detach().numpy()


@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize("images", [1, 2, 7])
def test_a_file_gives_the_calibrated_probabilities_of_any_number_of_images(
    network, files, kind, images
):
    batch = pixels(images, seed=images)
    found = run(files[kind], batch)
    assert found.dtype == np.float32
    assert found.shape == (images, 3)
    assert np.ptp(expected(network, batch)) > 0.05
    np.testing.assert_allclose(found, expected(network, batch), atol=CLOSE)


def test_an_onnx_file_states_its_input_output_opset_and_facts(files):
    model = onnx.load(files["onnx"])
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    session = onnxruntime.InferenceSession(files["onnx"])
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == (
        *("image", "tensor(uint8)"),
        ["batch", 1, 48, 48],
    )
    assert (result.name, result.type, result.shape) == (
        *("probability", "tensor(float)"),
        ["batch", 3],
    )
    stored = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in stored.items()} == ABOUT


def test_a_torch_file_states_its_facts(files):
    stored = dict.fromkeys(ABOUT, "")
    torch.export.load(files["torch"], extra_files=stored)
    assert {key: json.loads(value) for key, value in stored.items()} == ABOUT


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_file_names_no_folder_of_the_machine(files, kind):
    content = files[kind].read_bytes()
    for folder in (Path(__file__).parents[2], Path(torch.__file__).parents[1], Path.home()):
        assert f"{folder}/".encode() not in content
    assert b'File \\"' not in content
    assert b'File "' not in content


@pytest.mark.whole
@pytest.mark.parametrize("opset", range(OPSETS[0], OPSETS[1] + 1))
def test_every_opset_that_is_accepted_is_written(network, program, tmp_path, opset):
    file = write(program, tmp_path, "onnx", opset)
    assert onnx.load(file).opset_import[0].version == opset
    batch = pixels(3)
    np.testing.assert_allclose(run(file, batch), expected(network, batch), atol=CLOSE)


@pytest.mark.whole
@pytest.mark.parametrize("opset", [OPSETS[0] - 1, 99])
def test_an_opset_that_the_converter_cannot_write_is_refused(program, tmp_path, opset):
    with pytest.raises(InputError, match=f"opset={opset}: "):
        write(program, tmp_path, "onnx", opset)
    assert list(tmp_path.iterdir()) == []


BACKBONES = {
    "tf_efficientnet_lite0": 64,
    "efficientnet_b0": 64,
    "resnet18": 64,
    "densenet121": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 224,
    "test_vit": 160,
    "swin_tiny_patch4_window7_224": 224,
}


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["onnx", "torch"])
@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_of_other_families_are_exported(tmp_path, name, kind):
    px = BACKBONES[name]
    network = network_of(name, px)
    batch = pixels(3, px)
    file = write(traced(network, px), tmp_path, kind)
    np.testing.assert_allclose(run(file, batch), expected(network, batch), atol=1e-4)


def test_a_frozen_backbone_and_another_order_of_memory_are_exported(tmp_path):
    network = network_of(frozen=True, channels_last=False)
    batch = pixels(2)
    file = write(traced(network), tmp_path, "torch")
    np.testing.assert_allclose(run(file, batch), expected(network, batch), atol=CLOSE)


def test_extreme_logits_give_the_probabilities_that_predictions_have():
    logits = torch.tensor([[-40.0, 20.0, 40.0], [17.0, -17.5, 90.0]])
    network = CalibratedNetwork(lambda image: logits, calibration_of())
    expected = calibrated(calibration_of(), logits.numpy())
    np.testing.assert_allclose(network(torch.zeros(2)), expected, atol=1e-6)


def test_a_network_that_cannot_be_traced_is_one_sentence(network):
    class Stubborn(torch.nn.Module):
        def forward(self, image):
            return image.float().flatten(1)[: int(image.sum()) or 1, :3]

    with pytest.raises(InputError, match="cannot be exported"):
        trace(CalibratedNetwork(Stubborn(), calibration_of()), 48)


def test_weights_too_large_for_one_onnx_file_are_refused(program, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    with pytest.raises(InputError, match="format=torch"):
        write(program, tmp_path, "onnx")
