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
def files(program, tmp_path_factory):
    """`model.onnx` and `model.pt2` of the network, by format."""
    from tests.export.models import write

    folder = tmp_path_factory.mktemp("files")
    return {kind: write(program, folder, kind) for kind in ("onnx", "torch")}
