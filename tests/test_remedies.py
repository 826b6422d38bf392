"""A sweep over named sets of overrides, and the report that compares them."""

import runpy
import sys

import pandas as pd
import pytest

from fluoroscope.command import entry
from fluoroscope.config import CONF
from fluoroscope.errors import InputError
from fluoroscope.reporting.basis import basis
from fluoroscope.reporting.collect import Collection, collect
from fluoroscope.reporting.comparison import compare
from tests.support.films import TINY
from tests.support.studies import write_study

REMEDIES = ["experiment=remedies", "+remedies.small=['head.width=7','data.batch_size=16']"]


@pytest.fixture(scope="module")
def sweep(films, tmp_path_factory):
    """The folder of a sweep of two remedies with two seeds, and what the command printed."""
    folder = tmp_path_factory.mktemp("remedies") / "sweep"
    arguments = ["-m", *TINY, f"data.root={films}", *REMEDIES, f"hydra.sweep.dir={folder}"]
    arguments += ["run.remedy=none,small", "seed=1,2", "trainer.max_epochs=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *arguments])
        patch.chdir(folder.parent)
        entry.command("", "train", "fluoroscope.train:main", "fluoroscope.config.train:check_run")
    return folder


def test_a_sweep_of_remedies_is_compared_by_remedy(sweep):
    comparison = compare(collect([sweep]), by="remedy")
    (setting,) = comparison.settings
    assert set(setting.rows["activation"]) == {"none", "small"}
    assert (comparison.reference, setting.rows["activation"][0]) == ("none", "none")
    assert list(setting.rows["seeds"]) == [2, 2]
    assert {run.config["head"]["width"] for run in setting.runs if run.row == "small"} == {7}


def test_the_report_of_remedies_names_them(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [f"runs={sweep}", "by=remedy", "out=report"]
    monkeypatch.setattr(sys, "argv", ["report.py", *words])
    runpy.run_path(str(CONF.parent / "scripts/report.py"), run_name="__main__")
    assert "'none'" in capsys.readouterr().out
    page = (tmp_path / "report/report.md").read_text()
    assert page.startswith("# Remedies, compared")
    assert "| Remedy | AUROC | Minus none |" in page
    assert "destructive" not in page
    assert {"remedy", "setting"} <= set(pd.read_csv(tmp_path / "report/table.csv"))


def test_keys_that_vary_within_a_remedy_are_settings(tmp_path):
    settings = [
        {"run.remedy": name, "optimizer.lr": lr, "head.order": order}
        for name, order in (("none", "activation-norm"), ("norm_first", "norm-activation"))
        for lr in (1e-3, 1e-4)
    ]
    runs = collect([write_study(tmp_path / "study", ("relu",), settings=settings)])
    comparison = compare(runs, by="remedy")
    assert [table.label for table in comparison.settings] == [
        "optimizer.lr=0.0001",
        "optimizer.lr=0.001",
    ]
    assert "norm_first" in str(basis(comparison).rows)
    without = compare(runs, "none", by="remedy")
    assert without.reference == "none"


def test_any_key_is_compared_and_others_that_vary_are_settings(tmp_path):
    settings = [{"optimizer.lr": lr} for lr in (1e-3, 1e-4)]
    runs = collect([write_study(tmp_path / "study", ("relu", "gelu"), settings=settings)])
    comparison = compare(runs, "0.001", by="optimizer.lr")
    assert [table.label for table in comparison.settings] == [
        "head.activation=gelu",
        "head.activation=relu",
    ]
    assert set(comparison.settings[0].rows["activation"]) == {"0.001", "0.0001"}


def test_runs_without_the_key_are_refused(tmp_path):
    runs = collect([write_study(tmp_path / "study", ("relu",))])
    with pytest.raises(InputError, match=r"by=remedy: .* has no value of run.remedy; give runs of"):
        compare(runs, by="remedy")
    with pytest.raises(InputError, match=r"by=optimizer.nothing: .*; give another key"):
        compare(Collection(runs.runs, []), by="optimizer.nothing")
