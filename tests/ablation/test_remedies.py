import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy import stats

from fluoroscope.ablation.remedies import compare, interval, markdown, summarise
from fluoroscope.ablation.settings import check_remedies
from fluoroscope.cli import CONF
from fluoroscope.errors import InputError
from fluoroscope.runs import read_json
from tests.support.films import TINY

TINY_REMEDIES = [*TINY, "data.patient_pattern='(p\\d+)_'", "seeds=2"]


def composed(*overrides):
    OmegaConf.register_new_resolver("either", lambda a, b: a or b, replace=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("remedies", [*overrides])


def test_each_remedy_of_the_file_is_a_valid_run_that_differs_from_the_first():
    remedies = check_remedies(composed("data=nih14", "data.root=films"))
    assert len(remedies.runs) == 18
    first = next(iter(remedies.runs))
    assert [name for name, cfg in remedies.runs.items() if cfg == remedies.runs[first]] == [first]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seeds=0", "seeds must be a whole number of at least 1; got 0"),
        ("only=[nothing]", "only must be one of .*; got 'nothing'"),
        ("+remedies.mine=3", "remedies.mine must be a list of KEY=VALUE; got 3"),
        ("+remedies.mine=['head.widht=3']", r"there is no key head.widht \(did you mean"),
        ("+remedies.mine=['optimizer.lr=-1']", "optimizer.lr must be at least 0"),
        ("run.resume=here", "run.resume: give the folder as run.dir"),
    ],
)
def test_what_cannot_be_compared_is_refused(override, told):
    with pytest.raises(InputError, match=told):
        check_remedies(composed(override))


def test_a_comparison_trains_each_seed_and_goes_on_where_it_stopped(films, tmp_path, capsys):
    cfg = composed(*TINY_REMEDIES, f"data.root={films}", "only=[none,leaky_relu,unfreezing]")
    table = compare(check_remedies(cfg), tmp_path)
    assert list(table["remedy"]) == ["none", "none", *["leaky_relu"] * 2, *["unfreezing"] * 2]
    assert list(table["seed"]) == [1, 2] * 3
    result = read_json(tmp_path / "leaky_relu-s2/result.json")
    assert (result["activation"], result["seed"]) == ("leaky_relu", 2)
    assert table["auroc"].iloc[3] == result["test"]["auroc"]
    assert (tmp_path / "none-s1/metrics.csv").exists()
    assert not (tmp_path / "none-s1/checkpoints").exists()
    (tmp_path / "none-s2/result.json").unlink()
    before = (tmp_path / "none-s1/result.json").stat().st_mtime_ns
    again = compare(check_remedies(cfg), tmp_path)
    assert (tmp_path / "none-s1/result.json").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(again.drop(columns="fit_s"), table.drop(columns="fit_s"))


def test_intervals_are_those_of_the_t_test():
    values = np.array([0.91, 0.88, 0.93, 0.90])
    other = np.array([0.89, 0.885, 0.90, 0.91])
    table = pd.DataFrame(
        {
            "remedy": ["a"] * 4 + ["b"] * 4,
            "seed": [1, 2, 3, 4, 4, 3, 2, 1],  # paired by seed, not by place
            "dead": 0.25,
            "linear": 0.5,
            "blackout": 0.0,
            "auroc": [*other, *values[::-1]],
        }
    )
    row = summarise(table).iloc[1]
    expected = stats.ttest_rel(values, other).confidence_interval(0.95)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx((expected.low, expected.high))
    assert row["gain"] == pytest.approx((values - other).mean())
    alone = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((values.mean(), alone.low, alone.high))
    assert "| b | 25.0% | 50.0% | 0.0% | 0.905 (" in markdown(summarise(table), table)


def test_one_seed_has_no_interval():
    mean, low, high = interval(np.array([0.5]))
    assert mean == 0.5
    assert np.isnan(low)
    assert np.isnan(high)
