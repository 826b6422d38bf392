"""`scripts/report.py` from its command line."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from fluoroscope.command import entry
from fluoroscope.config import CONF
from fluoroscope.config.report import check_report
from fluoroscope.errors import InputError
from fluoroscope.reporting.collect import Collection
from tests.support.studies import write_study

ENTRY = ("fluoroscope.report:main", "fluoroscope.config.report:check_report")
FILES = {"report.html", "report.md", "table.csv", "figures"}


def report(monkeypatch, place, *arguments):
    """The command in this process, from a working directory; its exit code."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["report.py", *arguments])
    try:
        entry.command("", "report", *ENTRY)
    except SystemExit as error:
        return error.code
    return 0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("made") / "sweep", ("relu", "identity"), seeds=2)


@pytest.fixture
def study(written, tmp_path):
    shutil.copytree(written, tmp_path / "sweep")
    return tmp_path


def test_the_report_lies_in_the_folder_of_the_runs(monkeypatch, capsys, study):
    assert report(monkeypatch, study, "runs=sweep") == 0
    assert {path.name for path in (study / "sweep/report").iterdir()} == FILES
    assert {path.name for path in study.iterdir()} == {"sweep", "outputs"}
    assert not any((study / "outputs").iterdir())  # Hydra's folder is gone again
    out = capsys.readouterr().out
    assert "4 runs read" in out
    assert "Undecided: 2 seeds cannot show how much is chance" in out
    assert "identity" in out
    for name in FILES:
        assert f"wrote sweep/report/{name}" in out
    # A second report replaces the first, and takes it for no run.
    assert report(monkeypatch, study, "runs=sweep", "reference=identity") == 0
    assert "identity: undecided" in (study / "sweep/report/report.html").read_text()


def test_runs_of_several_folders_go_to_a_new_one(monkeypatch, study):
    one, two = study / "one", study / "two"
    for folder in sorted((study / "sweep").iterdir()):
        shutil.copytree(folder, (one if "relu" in folder.name else two) / folder.name)
    assert report(monkeypatch, study, "runs=[one,two]") == 0
    (folder,) = (study / "outputs").iterdir()
    assert folder.name.endswith("-report")
    assert {path.name for path in folder.iterdir()} == FILES
    assert report(monkeypatch, study, "runs=[one,two]", "out=mine") == 0
    assert {path.name for path in (study / "mine").iterdir()} == FILES


def test_runs_without_diagnostics_and_of_one_seed_are_reported(monkeypatch, capsys, study):
    for folder in (study / "sweep").iterdir():
        if folder.name.endswith("s2"):
            shutil.rmtree(folder)
            continue
        result = json.loads((folder / "result.json").read_text())
        del result["units"], result["grad"]
        (folder / "result.json").write_text(json.dumps(result))
        lines = (folder / "metrics.csv").read_text().splitlines()
        keep = [i for i, key in enumerate(lines[0].split(",")) if "units" not in key]
        short = [",".join(line.split(",")[i] for i in keep) for line in lines]
        (folder / "metrics.csv").write_text("\n".join(short) + "\n")
    assert report(monkeypatch, study, "runs=sweep") == 0
    assert "Undecided" in capsys.readouterr().out
    names = {path.stem for path in study.glob("sweep/report/figures/*.png")}
    assert "difference" in names
    assert "dead-auroc" not in names
    assert not {name for name in names if "dead" in name}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "runs is not set; add runs=FOLDER"),
        (["runs=nowhere"], "runs: there is no folder nowhere"),
        (["runs=[]"], "runs must be a folder or a list of folders, 'runs=[A,B]'; got []"),
        (["runs=3"], "runs must be a folder or a list of folders, 'runs=[A,B]'; got 3"),
        (["runs=wandb:"], "runs: write a W&B project as wandb:ENTITY/PROJECT; got 'wandb:'"),
        (["runs=sweep", "out=file"], "out: file is a file; choose a folder"),
        (["runs=sweep", "out=file/below"], "out: cannot write the report to file/below"),
        (["runs=sweep", "reference=rleu"], "did you mean 'relu'?"),
        (["runs=sweep", "min_seeds=1"], "min_seeds must be at least 2; got 1"),
        (["runs=sweep", "wandb.entity=me"], "wandb.entity is set without a project"),
        (["runs=sweep", "incomplet=true"], "there is no key incomplet (did you mean 'incomplete'?"),
    ],
)
def test_what_cannot_work_is_told_in_a_sentence(monkeypatch, capsys, study, arguments, told):
    (study / "file").write_text("")
    assert report(monkeypatch, study, *arguments) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_a_folder_that_is_not_there_is_told_before_anything_heavy_is_imported(tmp_path):
    cfg = OmegaConf.load(CONF / "report.yaml")
    keys = [key for key in cfg if key not in ("defaults", "hydra")]
    for runs in ("nowhere", [str(tmp_path), "nowhere"]):
        with pytest.raises(InputError, match="runs: there is no folder nowhere"):
            check_report(OmegaConf.merge(OmegaConf.masked_copy(cfg, keys), {"runs": runs}))


def test_an_unfinished_run_is_left_out_only_on_demand(monkeypatch, capsys, study):
    next((study / "sweep").glob("*identity-s2")).joinpath("result.json").unlink()
    assert report(monkeypatch, study, "runs=sweep") == 2
    assert "is still running, or was killed (it has no result.json); incomplete=true" in (
        capsys.readouterr().err
    )
    assert report(monkeypatch, study, "runs=sweep", "incomplete=true") == 0
    page = (study / "sweep/report/report.html").read_text()
    assert "Left out: 2" in page
    assert "identity-s2 is still running, or was killed" in page


def test_a_project_on_wandb_is_read_and_a_report_put_there(monkeypatch, capsys, study):
    """Who does so is tested elsewhere; here, that he is asked for the right thing."""
    from fluoroscope.reporting import collect as reader

    asked = []

    def collect(*arguments, **options):
        asked.append((arguments, options))
        return Collection(reader.collect([study / "sweep"]).runs, [])

    def publish(comparison, decided, folder, **place):
        asked.append((folder.name, len(comparison.settings), decided.destructive, place))
        return "its address"

    module = "fluoroscope.tracking.wandb_runs"
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(collect=collect))
    module = "fluoroscope.tracking.wandb_report"
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(publish=publish))
    import fluoroscope.tracking as package

    monkeypatch.setattr(package, "wandb_runs", SimpleNamespace(collect=collect), raising=False)
    monkeypatch.setattr(package, "wandb_report", SimpleNamespace(publish=publish), raising=False)
    place = ["wandb.project=heads", "wandb.entity=us"]
    assert report(monkeypatch, study, "runs=wandb:them/theirs", "out=here", *place) == 0
    assert asked[0] == (("theirs", "them"), {"incomplete": False})
    assert "published its address" in capsys.readouterr().out
    folder, settings, _, target = asked[1]
    assert (folder, settings, target) == ("here", 1, {"project": "heads", "entity": "us"})


def test_the_script_enters_where_the_tests_do():
    script = (CONF.parent / "scripts/report.py").read_text()
    assert all(f'"{place}"' in script for place in ENTRY)
