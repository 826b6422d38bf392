"""The recorded numbers still come out, and a run folder of an earlier version still resumes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from fluoroscope.ablation.ablate import ablate
from fluoroscope.config import CONF
from fluoroscope.config.ablate import check_ablate
from fluoroscope.config.evaluate import check_evaluate
from fluoroscope.config.train import check_train
from fluoroscope.evaluate import evaluate
from fluoroscope.train import train
from tests.pin.pinned import COMMANDS, FILES, HERE, RECORD, RUNS, kept, numbers

BEFORE = HERE / "before"


def composed(name: str, overrides: list[str], check):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check(compose(name, overrides), overrides)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the pinned run, the pinned ablation and a copy of the earlier run lie."""
    place = tmp_path_factory.mktemp("pin")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train(composed("train", COMMANDS["train"], check_train), Path("run"), [])
        heads = [word.replace("activations", "++activations") for word in COMMANDS["ablate"]]
        ablate(composed("ablate", heads, check_ablate), Path("ablation"))
    return place


def assert_same(file: Path, record: Path) -> None:
    """The same words; numbers to the rounding in which processors differ."""
    words, values = numbers(kept(file))
    recorded_words, recorded = numbers(kept(record))
    assert words == recorded_words
    np.testing.assert_allclose(values, recorded, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("file", FILES)
def test_the_recorded_numbers_come_out(place, run, file):
    assert_same(place / run / file, RECORD / run / file)


def test_a_run_folder_of_an_earlier_version_is_evaluated_and_resumed(place, monkeypatch):
    monkeypatch.chdir(place)
    shutil.copytree(BEFORE / "run", "run-before")
    last, best = (Path(f"run-before/checkpoints/{name}.ckpt") for name in ("last", "best"))
    shutil.copyfile(last, best)
    scored = composed("evaluate", [f"checkpoint={best}", "split=test"], check_evaluate)
    evaluate(scored, Path("evaluated"))
    predictions = "predictions/test.csv"
    assert_same(Path("evaluated", predictions), BEFORE / "run" / predictions)

    # `resumed` follows the schedule of two epochs; that version began with a step at a rate of 0.
    keys = ["run.resume=run-before", "trainer.max_epochs=2"]
    train(composed("train", keys, check_train), Path("run-before"), [])
    for file in ("metrics.csv", "predictions/val.csv", "predictions/test.csv"):
        assert_same(Path("run-before", file), BEFORE / "resumed" / file)
