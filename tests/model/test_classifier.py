from functools import partial

import pytest
import torch

from tests.support.fits import fit


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_fused_optimizer_is_clipped_in_every_precision_it_is_used_with(
    films, monkeypatch, precision
):
    """On a GPU the optimizer is fused, which the CPU can do too."""
    keys = ["trainer.gradient_clip_val=0.01", f"trainer.precision={precision}"]
    keys += ["trainer.max_epochs=1", "diagnostics.every_n_steps=1"]
    always = partial(torch.optim.AdamW, fused=True)
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused: always(groups))
    last = fit(films, keys)["last"]
    assert last["grad/l2/total_clipped"] == pytest.approx(0.01, rel=1e-3)
    assert last["grad/l2/total"] > 0.02
