"""Two processes, of which one meets the bad batch."""

import json
import os
from functools import partial

import pytest
import torch

from tests.diagnostics import test_nonfinite as bad_batches
from tests.diagnostics.test_nonfinite import CASES
from tests.support.commands import together

# What breaks, how it is watched, and the process that gets the film.
TOGETHER = {
    "features": ("features", "NonFinite", 1),
    "loss": ("loss", "NonFinite", 1),
    "gradient": ("gradient", "NonFinite", 0),
    "late": ("loss", "Delayed", 1),
    "scaled": ("loss", "Delayed", 1),
}


def run(films, folder):
    """Of one of the two processes: each case in turn."""
    bad_batches.BAD_STEP = 7
    plain = torch.optim.AdamW
    torch.optim.AdamW = lambda groups, fused: plain(groups, fused=True)
    for name in TOGETHER:
        told = stopped(films, folder, name)
        (folder / f"{name}-{os.environ['RANK']}.json").write_text(json.dumps(told))


def stopped(films, folder, name):
    """What a process notices of a run of this case."""
    how, watch, rank = TOGETHER[name]

    class OnOne(bad_batches.Recorder):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            pl_module.backbone.armed &= trainer.global_rank == rank

    keys = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=4"]
    scaled = {"plugins": [bad_batches.Scaled()], "precision": None} if name == "scaled" else {}
    more = scaled | {"watch": getattr(bad_batches, watch), "recorder": OnOne}
    run = bad_batches.Broken(films, folder / name, how, keys=keys, **more)
    rows, states = run.recorder.rows, run.recorder.states
    names = [name for name, _ in run.model.named_parameters()]
    told = {"error": run.error, "rows": rows[7], "batches": len(rows)}
    return told | {"same": run.weights_equal(states[7], names)}


@pytest.fixture(scope="module")
def both(films, tmp_path_factory):
    """Two processes that meet a bad batch on one of them, over and over."""
    folder = tmp_path_factory.mktemp("together")
    together(partial(run, films, folder), folder)
    return folder


@pytest.mark.parametrize("name", TOGETHER)
def test_a_bad_batch_of_one_process_stops_both(both, name):
    how, watch, rank = TOGETHER[name]
    told = [json.loads((both / f"{name}-{r}.json").read_text()) for r in (0, 1)]
    rows = ", ".join(map(str, told[rank]["rows"]))
    for process in told:
        assert f"training stopped at optimizer step 7 in epoch 1: {CASES[how]}" in process["error"]
        assert f"on 4 images (rows {rows} of the study table)" in process["error"]
        assert process["batches"] == (8 if watch == "NonFinite" else 10)  # the epoch's last
        assert process["same"]
    saved = torch.load(both / name / "checkpoints/nonfinite.ckpt", weights_only=True)
    (place,) = saved["nonfinite"]["batches"]
    assert (place["rank"], place["batch_idx"]) == (rank, 7)
    assert place["index"] == told[rank]["rows"]
