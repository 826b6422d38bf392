import numpy as np
import torch
from matplotlib.colors import to_rgba

from fluoroscope.diagnostics.gate_picture import DEAD, draw
from fluoroscope.diagnostics.gatemap import GateMap
from fluoroscope.run import wandb_logger
from fluoroscope.run.run_folder import read_json
from fluoroscope.train import train
from tests.support.films import tiny_config


def test_a_run_leaves_the_shares_and_their_picture(films, tmp_path):
    cfg = tiny_config(films, "logger=wandb", "logger.mode=offline", "optimizer.lr=0.03")
    train(cfg, tmp_path, [])
    wandb_logger.finish(0)
    shares = np.load(tmp_path / "gate_open.npy")
    units = read_json(tmp_path / "result.json")["units"]
    assert shares.shape == (2, 31)
    assert (shares[-1] == 0).mean() == np.float64(units["val/dead_frac"])
    np.testing.assert_allclose(shares[-1].mean(), units["val/gate_open_frac"], rtol=1e-6)
    assert (tmp_path / "gate_open.png").stat().st_size > 5_000
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/gate_open_*.png"))


def test_units_are_sorted_and_the_dead_have_their_colour():
    shares = np.array([[0.5, 0.0, 1.0, 0.2], [0.9, 0.0, 0.3, 0.0]], dtype=np.float32)
    image = draw(shares).axes[0].images[0]
    shown = np.ma.filled(image.get_array(), -1)  # [D, E]
    assert shown[:, -1].tolist() == [-1, -1, np.float32(0.3), np.float32(0.9)]
    colours = image.to_rgba(image.get_array(), norm=True)
    assert tuple(colours[0, 1]) == to_rgba(DEAD)
    assert tuple(colours[3, 1]) != to_rgba(DEAD)


def test_a_resumed_run_keeps_the_epochs_before(tmp_path):
    before = GateMap(tmp_path)
    before.shares = [torch.tensor([0.5, 0.0])]
    after = GateMap(tmp_path)
    after.load_state_dict(before.state_dict())
    assert torch.equal(after.shares[0], before.shares[0])
