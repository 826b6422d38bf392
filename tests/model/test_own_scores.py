"""Scores of the user's own: their values, their intervals, and what is refused."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import fbeta_score

from fluoroscope.config.train import check_train
from fluoroscope.errors import InputError
from fluoroscope.evaluation.own import DRAWS, draw_own
from fluoroscope.evaluation.resampling import Patients
from fluoroscope.evaluation.scoring import Settings, score_table
from fluoroscope.model.own_scores import own_scores
from fluoroscope.model.score_names import TAKEN, check_scores
from fluoroscope.model.scores import score
from fluoroscope.own_code import trusting
from fluoroscope.train import train
from tests.config.test_trust import composed
from tests.evaluation.cases import predictions
from tests.support.films import tiny_config
from tests.support.own_package import EXAMPLES
from tests.test_evaluate import evaluated

F2 = "mypkg.scores.f2"
BAD = """
import numpy as np
def nothing(p, y, t): pass
def text(p, y, t): return "high"
def array(p, y, t): return p
def fails(p, y, t): raise KeyError("no such thing")
def leaves(p, y, t): raise SystemExit(3)
def takes_one(p): return 1.0
def late(p, y, t): return 1.0 if len(p) == 4 else 1 / 0
number = 3
class Score: pass
"""


@pytest.fixture
def own(own_package):
    """A function from names in `mypkg.scores` to the scores."""
    folder = own_package()
    (folder / "scores.py").write_text((EXAMPLES / "mypkg/scores.py").read_text() + BAD)

    def made(*names):
        paths = [f"mypkg.scores.{name}" for name in names]
        with trusting(paths):
            return own_scores(paths)

    return made


def test_it_is_scored_beside_ours_over_labels_and_means(own):
    rng = np.random.default_rng(0)
    p, y = rng.random((40, 3)), rng.integers(0, 2, (40, 3)).astype(float)
    y[:7, 1], y[:, 2] = math.nan, 1  # unknown truth; a label without negatives
    given = torch.from_numpy(p), torch.from_numpy(y), torch.tensor([0.3, 0.6, 0.5]), "abc"
    scores = score(*given, own("f2"))
    known = ~np.isnan(y)
    of = [fbeta_score(y[known[:, k], k], p[known[:, k], k] >= t, beta=2)
          for k, t in ((0, 0.3), (1, 0.6))]  # fmt: skip
    assert [scores["f2/a"], scores["f2/b"], scores["f2"]] == pytest.approx([*of, np.mean(of)])
    assert math.isnan(scores["f2/c"])
    ours = score(*given)
    assert {name: value for name, value in scores.items() if "f2" not in name} == pytest.approx(
        ours, nan_ok=True
    )


def test_its_interval_is_that_of_the_bootstrap_over_patients(own):
    table = predictions()
    patients = Patients(table["group"])
    p, y = (table[name].to_numpy(float) for name in ("Disc_probability", "Disc"))
    rows = np.ones(len(p), bool)
    found, drawn = draw_own(own("f2"), p, y, 0.4, rows, patients)
    weight = patients.drawn[:DRAWS, patients.number].astype(float)  # of each image
    hit, missed, false = (((p >= 0.4) == c) & (y == t) for c, t in ((1, 1), (0, 1), (1, 0)))
    tp, fn, fp = (weight @ part for part in (hit, missed, false))
    again = 5 * tp / (5 * tp + 4 * fn + fp)
    np.testing.assert_allclose(drawn["f2"], again)
    low, high = np.quantile(again, [0.025, 0.975])
    assert found["f2"] == pytest.approx((fbeta_score(y, p >= 0.4, beta=2), low, high))


def test_an_evaluation_has_it_for_each_label_and_their_mean(own):
    both = predictions(seed=1, label="Ring").drop(columns=["row", "group"])
    table = pd.concat([predictions(), both], axis=1)
    scores, macro = score_table(table, ["Disc", "Ring"], {}, Settings([], own=own("f2")))
    values = [scores[label].own["f2"].value for label in ("Disc", "Ring")]
    assert macro.own["f2"].value == pytest.approx(np.mean(values))
    # Two labels together vary less than the more uncertain one.
    widths = [e.high - e.low for e in (macro.own["f2"], *(scores[k].own["f2"] for k in scores))]
    assert 0 < widths[0] < max(widths[1:])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "it returned an object of type NoneType"),
        ("text", "it returned an object of type str"),
        ("array", "it returned an object of type ndarray"),
        ("fails", r"fails \(KeyError: .*no such thing.*\); correct it"),
        ("leaves", r"fails \(SystemExit"),
        ("takes_one", r"fails \(TypeError"),
        ("number", r"must be a function of .*; it is an object of type int"),
        ("Score", "must be a function of .*; it is a class"),
        ("f3", "mypkg.scores has no f3"),
    ],
)
def test_what_gives_no_number_is_refused_before_data_are_read(own, name, reason):
    with pytest.raises(InputError, match=f"^scores(=|: )mypkg.scores.{name}.*{reason}"):
        own(name)


def test_a_function_that_fails_later_ends_in_a_sentence(own):
    function = own("late")["late"]
    with pytest.raises(InputError, match=r"^scores: mypkg.scores.late fails \(ZeroDivisionError"):
        function(np.ones(5), np.array([0, 1, 0, 1, 1]), 0.5)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["f2"], "scores takes import paths"),
        ([3], "scores takes import paths"),
        (["mypkg.scores.auroc"], "scores: auroc would be the name of two numbers"),
        (["a.f2", "b.f2"], "scores: f2 would be the name of two numbers"),
    ],
)
def test_names_that_cannot_be_keys_are_refused(value, reason):
    with pytest.raises(InputError, match=f"^{reason}"):
        check_scores("scores", value)


def test_a_package_that_is_not_there_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with trusting(["nopkg.f2"]), pytest.raises(InputError, match="there is no module nopkg"):
        check_scores("scores", ["nopkg.f2"])
    check_scores("scores", ["nopkg.f2"])  # a stored one may be elsewhere


def test_a_run_logs_it_and_an_evaluation_asks_before_it_imports_it(own, films, tmp_path):
    own()
    folder = tmp_path / "run"
    words = ["trainer.max_epochs=1", f"scores=[{F2}]"]
    with trusting([F2]):
        result = train(tiny_config(films, *words), folder, [])
    assert {name for name in result["test"] if "/" not in name} <= {*TAKEN, "f2"}
    assert "val/f2" in (folder / "metrics.csv").read_text().partition("\n")[0]

    resume = [f"run.resume={folder}", "trainer.max_epochs=2"]
    with pytest.raises(InputError, match=rf"config.yaml: scores names code, '{F2}', .* add trust="):
        check_train(composed("train", *resume), resume)
    with trusting([F2]):
        repeated = [*resume, f"scores=[{F2}]"]
        assert check_train(composed("train", *repeated), repeated).scores == [F2]

    checkpoint = f"checkpoint={folder}"
    with pytest.raises(InputError, match=rf"^scores names code, '{F2}', .* add trust=\[{F2}\]"):
        evaluated(tmp_path / "refused", checkpoint)
    without = evaluated(tmp_path / "without", checkpoint, "scores=[]")
    assert "f2" not in without
    with trusting(["mypkg"]):
        again = evaluated(tmp_path / "again", checkpoint, "points=[youden]")
    assert again["f2"] == pytest.approx(result["test"]["f2"])
    content = json.loads((tmp_path / "again/evaluation.json").read_text())
    assert content["labels"]["BLOB"]["own"] == {}  # too few images to judge
