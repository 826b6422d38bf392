"""Further models on the images of an evaluation: to compare with, or to average with."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from fluoroscope.console import show_progress
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.leakage import seen_images
from fluoroscope.data.lookalikes import refuse_alike
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError
from fluoroscope.sources import names
from fluoroscope.sources.findings import Name, names_of, pair
from fluoroscope.statistics import Floats
from fluoroscope.trained.forward import predict_batches
from fluoroscope.trained.loading import Trained, open_trained

MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Member(NamedTuple):
    """A further model.

    Attributes:
        place: as the user gave it.
        labels: its own name of each label that the evaluated model knows too.
    """

    place: str
    trained: Trained
    labels: dict[str, str]


def label_names(checkpoint: Mapping[str, Any]) -> dict[str, Name]:
    """What the labels of a checkpoint mean, see `sources.findings`."""
    data = checkpoint["config"]["data"]
    source = checkpoint.get("source", data["source"])
    known = source if source in names() and source != "prepared" else None
    return names_of(data["labels"], known, data.get("label_map"))


def open_member(place: str, checkpoint: Mapping[str, Any], accelerator: str = "auto") -> Member:
    """Open a model that shares labels with a checkpoint.

    Raises:
        InputError: there is no such model, or it shares no label.
    """
    trained = open_trained(place, accelerator)
    own = label_names(checkpoint)
    labels = pair(own, label_names(trained.checkpoint))
    if not labels:
        raise InputError(
            f"{place} knows {', '.join(trained.labels)}, and the evaluated model knows "
            f"{', '.join(own)}: they have no label in common"
        )
    return Member(place, trained, labels)


def unseen_by(member: Member, studies: Studies, split: str, allow_alike: bool) -> np.ndarray:
    """Which images of a split a model has not seen, bool [N].

    Raises:
        InputError: it has seen all, or images that look like the others.
    """
    checkpoint = member.trained.checkpoint
    new = ~seen_images(checkpoint, studies, split, allow_alike)
    if not new.any():
        raise InputError(
            f"{member.place} was trained or validated on all images to score, or on their "
            "patients; models of different folds or splits can be scored together only on another "
            "collection (data=)"
        )
    if not (new.all() or allow_alike):
        refuse_alike(checkpoint, studies.survey[studies.rows_of(split)][new])
    return new


def logits_of(
    member: Member,
    studies: Studies,
    split: str,
    batch_size: int,
    num_workers: int | None = None,
    precision: str = "32-true",
) -> Floats:
    """Logits [N, K] of all images of a split, K labels of the model's own.

    Args:
        precision: of the evaluated model, so that both are computed alike.
    """
    data = XrayDataModule(
        studies.table, studies.labels, member.trained.image_px, batch_size, num_workers
    )
    loader = data.evaluation_dataloader(split)
    batches = show_progress(loader, f"scoring with {member.place}", len(loader))
    with torch.inference_mode(), _autocast(member.trained, precision):
        images = (batch["image"] for batch in batches)
        parts = [logits for logits, _ in predict_batches(member.trained, images)]
    return torch.cat(parts).numpy().astype(float)


def _autocast(trained: Trained, precision: str) -> AbstractContextManager[Any]:
    if precision not in MIXED:
        return nullcontext()
    return torch.autocast(trained.device.type, MIXED[precision])
