"""Whole runs on the device: their batches, their resumption, and many heads as one."""

import pytest
import torch

from fluoroscope import build
from fluoroscope.data.prefetch import DevicePrefetch
from fluoroscope.run.features import cached_features
from fluoroscope.train import train
from tests.ablation.test_ablate import assert_a_bank_is_its_heads
from tests.data.test_prefetch import CPU, Witness, fed, replace_streams
from tests.run.test_resume import LONG, SHAKY, Stop, assert_equal, train_with, weights
from tests.run.test_resume import SHARED as SEVERAL
from tests.support.films import tiny_config

pytestmark = pytest.mark.gpu
SLEEP_CYCLES = 5_000_000  # some milliseconds


class Slow(Witness):
    """Reads a batch long after it was handed out, and then lets go of it: a copy of a later one
    that takes its memory too early would be seen.
    """

    def note(self, batch):
        if batch["image"].device.type == "cuda":
            torch.cuda._sleep(SLEEP_CYCLES)
        self.seen[-1] = (self.seen[-1][0], {key: part.clone() for key, part in batch.items()})

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.note(batch)
        return loss

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        if not self.trainer.sanity_checking:
            self.note(batch)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_copied_ahead_are_the_same_in_the_same_order(
    films, device, keys, monkeypatch, workers
):
    """On a CPU the streams are stand-ins."""
    cfg = tiny_config(films, *keys, f"data.num_workers={workers}")
    data = build.build_data(cfg, build.build_studies(cfg))
    expected = fed(data)
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    if device.type == "cpu":
        replace_streams(monkeypatch)
        wrap = lambda self, loader: DevicePrefetch(loader, CPU)  # noqa: E731
        monkeypatch.setattr(type(data), "_to_device", wrap)
    slow = Slow()
    ahead = fed(data, slow, accelerator)
    assert isinstance(slow.trainer.train_dataloader, DevicePrefetch)
    assert [epoch for epoch, _ in ahead] == [epoch for epoch, _ in expected]
    assert [epoch for epoch, _ in ahead].count(1) == 10
    for (_, found), (_, batch) in zip(ahead, expected, strict=True):
        assert {part.device.type for part in found.values()} == {device.type}
        assert all(torch.equal(found[key].cpu(), part) for key, part in batch.items())
        assert found.keys() == batch.keys()


CASES = {
    "bfloat16, several": ["trainer.precision=bf16-mixed", *SEVERAL["several"]],
    "float32, clipped": ["trainer.gradient_clip_val=0.5"],
    # Of which Lightning makes bfloat16 on a CPU.
    "float16, scaled": ["trainer.precision=16-mixed"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_resumed_within_an_epoch_ends_where_an_unbroken_one_does(
    films, tmp_path, monkeypatch, keys, case
):
    """To the last bit, so also what dropout draws on the device."""
    cfg = tiny_config(films, *LONG, *SHAKY, *CASES[case], *keys)
    assert cfg.head.dropout > 0
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(cfg, whole, [])
    cfg.data.labels = None
    train_with(monkeypatch, cfg, broken, Stop(1, 7))
    assert weights(broken, "step")["batches"] == 6
    cfg.run.resume = str(broken)
    train(cfg, broken, [])
    assert_equal(whole, broken)


@pytest.mark.parametrize("case", ["clipped, dropout, one decay each", "cached"])
def test_a_head_of_a_bank_is_the_head_of_a_run(films, tmp_path, monkeypatch, keys, case):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert_a_bank_is_its_heads(films, tmp_path, case, keys[0])


def test_kept_features_are_recognised(films, tmp_path, device, keys, monkeypatch):
    """With TF32, as a run has it: some of them are computed again, in a batch of another size."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    cfg = tiny_config(films, keys[0])
    data = build.build_data(cfg, build.build_studies(cfg))
    backbone = build.build_backbone(cfg)
    (first, kept), (again, found) = (
        cached_features(backbone, data, 0, [], device, tmp_path) for _ in range(2)
    )
    assert "features of 120 images from" not in kept
    assert "features of 120 images from" in found
    assert torch.equal(first, again)
