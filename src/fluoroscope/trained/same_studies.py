"""The studies that a model was trained, validated and tested on."""

import copy
from typing import Any

from fluoroscope import build
from fluoroscope.config.train import Train
from fluoroscope.data.earlier_runs import without_seen
from fluoroscope.data.study_table import Studies
from fluoroscope.run.resume import check_same_studies


def same_studies(config: Train, checkpoint: dict[str, Any]) -> Studies:
    """Read the studies of a checkpoint again, with the same images in the same splits.

    Raises:
        InputError: the collection has changed.
    """
    config = copy.deepcopy(config)
    config.backbone.weights = "none"  # nothing is trained
    studies = build.build_studies(config)
    earlier = checkpoint.get("earlier", ())
    studies = without_seen(studies, earlier, config.data.on_duplicate)
    check_same_studies(checkpoint, studies.fingerprint)
    return studies
