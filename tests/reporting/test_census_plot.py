import json

import pandas as pd
import pytest

from fluoroscope.errors import InputError
from fluoroscope.reporting import census_plot


def write_run(folder, dead):
    folder.mkdir()
    result = {"activation": "relu", "width": 31, "test": {"auroc": 0.9}}
    (folder / "result.json").write_text(json.dumps(result))
    rows = [{"epoch": 0, "step": 1}]
    for epoch, share in enumerate(dead):
        census = {"dead": share, "linear": 0.1, "nonlinear": 0.9 - share}
        rows.append({"epoch": epoch} | {f"units/val/{k}_frac": v for k, v in census.items()})
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    return folder


def test_census_stacks_the_shares_of_each_run(tmp_path):
    runs = [write_run(tmp_path / "a", [0.0, 0.2, 0.5]), write_run(tmp_path / "b", [0.1, 0.1])]
    figure = census_plot.census(runs)
    assert len(figure.axes) == 2
    dead = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {(1, 0), (2, 20), (3, 50)} <= {(round(x), round(y)) for x, y in dead}
    assert figure.axes[0].get_title() == "relu: test AUROC 0.900"


def test_command_writes_the_picture(tmp_path):
    run = write_run(tmp_path / "a", [0.0, 0.2])
    census_plot.main([str(run), "--out", str(tmp_path / "census.png")])
    assert (tmp_path / "census.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_without_census_is_refused(tmp_path):
    run = write_run(tmp_path / "a", [0.0])
    pd.DataFrame([{"epoch": 0}]).to_csv(run / "metrics.csv", index=False)
    with pytest.raises(InputError, match="without diagnostics"):
        census_plot.census([run])
