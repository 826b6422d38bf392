"""A source of data in a package of the user's own: one file, as docs/extend.md says."""

import shutil
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir

from fluoroscope import sources
from fluoroscope.command.command_line import read
from fluoroscope.command.composition import check_jobs, compose_jobs
from fluoroscope.config import CONF
from fluoroscope.config.loaded import load_file
from fluoroscope.config.schema import plain
from fluoroscope.config.train import Train, check_train
from fluoroscope.errors import InputError
from fluoroscope.own_code import trusting
from fluoroscope.sources.reading.read_studies import read_studies
from tests.support.films import TINY
from tests.support.own_package import EXAMPLES, NAME, forgotten, write_clinic, write_package

OWN = ["data=own", "data.source=mypkg.clinic"]


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """The example's package in the working folder, and a folder of films with its table."""
    root = write_clinic(tmp_path / "films")
    package = write_package(tmp_path)
    shutil.copy(EXAMPLES / NAME / "clinic.py", package)
    monkeypatch.chdir(tmp_path)
    with forgotten():
        yield root


def configuration(*words):
    """The checked configuration of this command line, as a command makes it."""
    tiny = [word for word in TINY if word != "data=folder"]
    options = read([*tiny, *words])
    _, jobs = compose_jobs("train", options)
    return check_jobs(jobs, check_train, options)[0]


def test_a_source_is_one_file_with_its_keys(clinic):
    cfg = configuration(*OWN, f"data.root={clinic}", "data.site=north")
    assert (cfg.data.site, cfg.data.table) == ("north", "findings.csv")
    with trusting(["mypkg"]):
        studies = read_studies(dict(cfg.data))
    assert len(studies.table) == 90
    assert studies.labels == ["Mass"]
    assert studies.table["patient"].nunique() == 30
    assert studies.source == "mypkg.clinic"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.sites=north"], r"there is no key data\.sites.*did you mean 'data\.site'"),
        (["data.source=mypkg.clinics"], r"mypkg has no clinics.*did you mean 'clinic'"),
        (["data.source=mypkg.acts"], "has no class Keys"),
        (["data.source=clinic"], "data.source must be one of"),
        (["data.site=[a,b]"], "data.site must be text or null"),
    ],
)
def test_what_is_no_source_or_no_key_is_refused(clinic, words, told):
    with pytest.raises(InputError, match=told):
        configuration(*OWN, f"data.root={clinic}", *words)


def test_nobody_else_has_it_imported(clinic):
    for source in ("mypkg.clinic", "os.path"):
        with pytest.raises(InputError, match="names code"):
            sources.keys_of(source)


def test_a_stored_run_is_read_as_data_and_used_only_if_its_source_is_trusted(clinic, tmp_path):
    """A report shows runs of a source that it does not import, with the source's own keys."""
    cfg = configuration(*OWN, f"data.root={clinic}", "data.site=north")
    stored = plain(cfg)
    del stored["schedule"], stored["data"]["on_duplicate"]  # an older run
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    sys.modules.pop("mypkg.clinic")
    for checked in (True, False):
        loaded = load_file(tmp_path / "config.yaml", Train, checked)
        assert (loaded.config["data"]["site"], loaded.ignored) == ("north", {})
        assert loaded.config["data"]["on_duplicate"] == "keep"
        assert loaded.config["schedule"]["name"] == "cosine"
    assert "mypkg.clinic" not in sys.modules
    with pytest.raises(InputError, match=r"config\.yaml: data\.source names code, 'mypkg\.clinic'"):
        resumed(tmp_path)
    with trusting(["mypkg"]):
        assert load_file(tmp_path / "config.yaml", Train).config == loaded.config
        cfg = resumed(tmp_path)
    assert (cfg.data.site, cfg.data.source) == ("north", "mypkg.clinic")
    stored["data"]["nothing"] = 1
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    with trusting(["mypkg"]), pytest.raises(InputError, match=r"no key data\.nothing"):
        resumed(tmp_path)


def resumed(folder):
    words = [f"run.resume={folder}", "trainer.max_epochs=3"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_train(compose("train", words), words)


def test_its_keys_are_no_keys_of_other_sources(clinic):
    with pytest.raises(InputError, match=r"there is no key data\.site"):
        configuration("data=folder", f"data.root={clinic}", "data.site=north")
