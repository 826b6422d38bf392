"""Scores of several collections: each says what limits its own score."""

import numpy as np
import pandas as pd
import torch

from fluoroscope.data.study_table import Studies
from fluoroscope.model.scores import Predictions
from fluoroscope.run.collection_scores import collection_lines, collection_scores


def test_each_collection_has_its_own_limits():
    """One of known patients with 12 positive images, one of unknown patients with a single one."""
    counts, truth = (24, 30), np.r_[[1.0, 0.0] * 12, 1.0, np.zeros(29)]
    table = pd.DataFrame(
        {
            "path": "x",
            "patient": [f"nih14\t{n}" for n in range(24)] + [f"\tfolder\t{n}" for n in range(30)],
            "split": "test",
            "view": None,
        }
    )
    table = table.assign(collection=np.repeat(["nih14", "folder"], counts), Mass=truth)
    studies = Studies(table, ["Mass"], "f00d", 0, pd.DataFrame(), (), "several", "nih14 + folder")
    logits = torch.linspace(0, 1, 54)[:, None]
    predictions = Predictions(torch.arange(54), logits, logits)
    scored = collection_scores(studies, predictions)["collections"]
    assert "limits" not in scored["nih14"]
    assert "interval_too_narrow" not in scored["nih14"]
    assert scored["folder"]["interval_too_narrow"]
    assert np.isnan(scored["folder"]["auroc_low"])
    known, unknown, few, alone = collection_lines({"collections": scored})
    assert known.endswith(", 24 x-rays of 24 patients")
    assert unknown == "folder: AUROC 0.000, no 95 % interval, 30 x-rays"
    assert few.endswith("Mass has 1 positive image")
    assert alone.endswith("the positive images of Mass are all one image")
