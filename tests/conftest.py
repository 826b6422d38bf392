import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from fluoroscope.command.run_one import register_resolvers
from fluoroscope.launch import stopping

ROOT = Path(__file__).parents[1]
# `--help` in the tests' own process lets SIGPIPE end it.
SIGNALS = (*stopping.ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, stopping.REFUSED)
# They take longest, or wait, so that nobody waits for them alone at the end.
FIRST = (
    *("run/test_kill", "test_distributed", "benchmarks/test_scaling"),
    *("command/test_sweep", "launch/test_slurm", "test_airgap", "config/test_bad_input"),
    *("run/test_wandb_logger", "test_readme", "run/test_resume", "run/test_disk_errors"),
    *("test_train", "ablation/test_ablate", "diagnostics/test_exactness", "tracking/test_upload"),
    *(
        "tracking/test_wandb_runs",
        "tracking/test_dashboard",
        "pin/test_pin",
        "launch/test_hub_check",
    ),
    *("benchmarks/test_gpu", "test_remedies", "audit/test_inspection", "prepare/test_copying"),
)
sys.path.insert(0, str(ROOT))  # for tests.support

from tests.support.wandb_log import end_wandb  # noqa: E402

# A machine's own settings must not decide a test.
for name in list(os.environ):
    if name.startswith(("SLURM_", "WANDB_", "HYDRA_", "TORCHELASTIC_", "FLUOROSCOPE_")):
        del os.environ[name]
register_resolvers()  # as a command does before it composes
os.environ |= {"NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1", "WANDB_SILENT": "true"}
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# A configuration is composed some thousand times, and libyaml reads it three times as fast.
if yaml.__with_libyaml__:
    yaml.SafeLoader = yaml.CSafeLoader


def pytest_collection_modifyitems(items):
    files = [str(ROOT / f"tests/{name}.py") for name in FIRST]
    order = {file: place for place, file in enumerate(files)}
    items.sort(key=lambda item: order.get(str(item.path), len(order)))


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="of the tests marked gpu; cpu rehearses them without a GPU",
    )


@pytest.fixture(autouse=True, scope="session")
def _apart(tmp_path_factory):
    """Caches and keys of the person who runs the tests stay out of them."""
    import torch  # here, since the process that hands out the tests needs nothing of it

    from fluoroscope.ablation import ablate

    torch.set_num_threads(1)  # the runners of tests are the parallelism
    ablate.cores = lambda: 1  # nor are passes of an ablation trained at a time, but where tested
    home = tmp_path_factory.mktemp("home")
    os.environ |= {"XDG_CACHE_HOME": str(home), "NETRC": str(home / "netrc")}


@pytest.fixture(autouse=True)
def _wandb_ends():
    """No test meets the W&B process and settings of an earlier one, nor do commands it starts."""
    yield
    end_wandb()


@pytest.fixture(autouse=True)
def _signals_stay(monkeypatch):
    """A command in the tests' own process handles signals only as long as its test lasts."""
    monkeypatch.setattr(stopping.WATCH, "begin", lambda: None)
    monkeypatch.setattr(stopping.WATCH, "stop", None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in handlers.items():
        if handler is not None:  # set by a library, not by Python
            signal.signal(signum, handler)


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Class folders of small films, see `support.films`."""
    from tests.support.films import write_films

    return write_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """119 films, see `support.films`."""
    from tests.support.films import write_uneven

    return write_uneven(tmp_path_factory.mktemp("uneven"))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, films):
    """The folder of a tiny run, see `support.trained_run`; tests only read it.

    All tests of a process share it, so a change would depend on their order. The end of the tests
    is an error if a file is not what it was.
    """
    from tests.support.trained_run import contents, write_run

    folder = write_run(films, tmp_path_factory.mktemp("trained") / "run")
    before = contents(folder)
    yield folder
    assert contents(folder) == before, "a test has written into the run that all tests share"


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """A function that writes `mypkg.acts` into the working folder, see `support.own_package`."""
    from tests.support.own_package import forgotten, write_package

    monkeypatch.chdir(tmp_path)
    with forgotten():
        yield lambda acts=None: write_package(tmp_path, acts)
