"""Two processes, of which one meets the bad batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.diagnostics.test_nonfinite import CASES

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from tests.diagnostics import test_nonfinite as t
from tests.diagnostics.test_nonfinite_together import TOGETHER

films, folder, own = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
keys = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=4"]
t.BAD_STEP = 7
torch.set_num_threads(1)
plain = torch.optim.AdamW
torch.optim.AdamW = lambda groups, fused: plain(groups, fused=True)

for name, (how, watch, rank) in TOGETHER.items():
    class OnOne(t.Recorder):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            pl_module.backbone.armed &= trainer.global_rank == rank

    more = {"plugins": [t.Scaled()], "precision": None} if name == "scaled" else {}
    more |= {"watch": getattr(t, watch), "recorder": OnOne}
    run = t.Broken(films, folder / name, how, keys=keys, **more)
    names = [name for name, _ in run.model.named_parameters()]
    told = {"error": run.error, "rows": run.recorder.rows[7], "batches": len(run.recorder.rows)}
    told["same"] = run.weights_equal(run.recorder.states[7], names)
    (folder / f"{name}-{own}.json").write_text(json.dumps(told))
"""
# What breaks, how it is watched, and the process that gets the film.
TOGETHER = {
    "features": ("features", "NonFinite", 1),
    "loss": ("loss", "NonFinite", 1),
    "gradient": ("gradient", "NonFinite", 0),
    "late": ("loss", "Delayed", 1),
    "scaled": ("loss", "Delayed", 1),
}


def start_process(rank, port, *arguments):
    root = Path(__file__).parents[2]
    place = {"LOCAL_RANK": rank, "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments), str(rank)],
        env={**env, **{key: str(value) for key, value in place.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def together(films, tmp_path_factory):
    """Two processes that meet a bad batch on one of them, over and over."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    processes = [start_process(rank, port, films, folder) for rank in (0, 1)]
    try:
        told = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], told
    return folder


@pytest.mark.parametrize("name", TOGETHER)
def test_a_bad_batch_of_one_process_stops_both(together, name):
    how, watch, rank = TOGETHER[name]
    told = [json.loads((together / f"{name}-{r}.json").read_text()) for r in (0, 1)]
    rows = ", ".join(map(str, told[rank]["rows"]))
    for process in told:
        assert f"training stopped at optimizer step 7 in epoch 1: {CASES[how]}" in process["error"]
        assert f"on 4 images (rows {rows} of the study table)" in process["error"]
        assert process["batches"] == (8 if watch == "NonFinite" else 10)  # the epoch's last
        assert process["same"]
    saved = torch.load(together / name / "checkpoints/nonfinite.ckpt", weights_only=True)
    (place,) = saved["nonfinite"]["batches"]
    assert (place["rank"], place["batch_idx"]) == (rank, 7)
    assert place["index"] == told[rank]["rows"]
