import pytest


@pytest.fixture(scope="session")
def network():
    """A tiny network of three labels, see `models`."""
    from tests.export.models import network_of

    return network_of()


@pytest.fixture(scope="session")
def program(network):
    from tests.export.models import traced

    return traced(network)


@pytest.fixture(scope="session")
def model_onnx(program, tmp_path_factory):
    from tests.export.models import write

    return write(program, tmp_path_factory.mktemp("onnx"), "onnx")


@pytest.fixture(scope="session")
def files(model_onnx, program, tmp_path_factory):
    """`model.onnx` and `model.pt2` of the network, by format."""
    from tests.export.models import write

    return {
        "onnx": model_onnx,
        "torch": write(program, tmp_path_factory.mktemp("torch"), "torch"),
    }
