"""The proof: a network trained where a corner marker goes with the label is caught."""

import numpy as np
import pytest

from fluoroscope import build
from fluoroscope.probes.judgement import CALLED
from fluoroscope.probes.probing import find_lungs, probe
from fluoroscope.train import train
from fluoroscope.trained.loading import open_trained
from tests.support import planted
from tests.support.films import config

PATIENTS = 100
KEYS = [
    *("backbone=lite0", "data.num_workers=0", "data.batch_size=16", "data.val_frac=0.15"),
    *("data.test_frac=0.4", "head.norm=layer", "optimizer.backbone_lr=1e-3", "logger=csv"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=3"),
    *("run.progress=quiet", "diagnostics.enabled=false"),
]


def trained_on(films, folder):
    """The probes of a network that was trained on these films, on their test split."""
    cfg = config(*KEYS, *planted.words(films, PATIENTS), f"run.dir={folder}")
    train(cfg, folder, [])
    studies = build.build_studies(cfg)
    data = build.build_data(cfg, studies)
    rows = np.flatnonzero(studies.rows_of("test"))
    lungs = find_lungs(studies, rows, planted.PX, None)
    found = probe(open_trained(folder, "cpu"), data, rows, lungs, {"Consolidation": ""})
    return found.labels["Consolidation"]


@pytest.mark.whole
def test_a_network_is_caught_if_and_only_if_the_marker_goes_with_the_label(tmp_path):
    drawn = planted.draw(tmp_path / "drawn", PATIENTS)
    for agreement in (0.5, 1.0):
        films = planted.plant(drawn, tmp_path / str(agreement), agreement)
        label = trained_on(films, tmp_path / f"run-{agreement}")
        called = {name for name, found in label.probes.items() if found.verdict == CALLED}
        if agreement == 0.5:
            assert label.auroc.low > 0.55
            assert called == set()
        else:
            assert {"lungs_hidden", "corners_masked"} <= called
