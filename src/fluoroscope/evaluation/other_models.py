"""The further models of an evaluation: opened and checked before any is applied."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluoroscope.config.train import Train
from fluoroscope.data.study_table import Studies
from fluoroscope.errors import InputError
from fluoroscope.evaluation.ensemble import part_of
from fluoroscope.evaluation.members import Member, logits_of, open_member, unseen_by
from fluoroscope.statistics import Floats
from fluoroscope.trained.operating_points import POINTS


class Loading(NamedTuple):
    """How further models read and score images; see `members.logits_of`."""

    batch_size: int
    num_workers: int | None = None
    precision: str = "32-true"

    @classmethod
    def of(cls, config: Train, precision: str) -> "Loading":
        """As the first model does; the precision is that of the trainer."""
        return cls(config.data.batch_size, config.data.num_workers, precision)


class Others(NamedTuple):
    """The further models of an evaluation.

    Attributes:
        members: of the ensemble, without the first; empty for one model.
        against: the model to compare with.
        kept: images of the split that no member has seen, bool [N].
        new: images of the split that `against` has not seen, bool [N].
    """

    members: list[Member]
    against: Member | None
    kept: NDArray[np.bool_]
    new: NDArray[np.bool_]


def open_others(
    places: Sequence[str],
    against: str | None,
    checkpoint: Mapping[str, Any],
    studies: Studies,
    split: str,
    allow_alike: bool,
    accelerator: str = "auto",
    points: Sequence[str] = POINTS,
) -> Others:
    """Open and check the further models, before any is applied.

    Args:
        places: of the ensemble's members, without the first.
        against: of the model to compare with.
        checkpoint: of the first model, which has not seen the images.
        studies, split, allow_alike: of `leakage.check_unseen`.
        points: operating points of the ensemble.

    Raises:
        InputError: a model cannot be opened, does not fit, or has seen all images.
    """
    members = [open_member(place, checkpoint, accelerator) for place in places]
    for member in members:
        part_of(member, studies.labels, points)  # refuses what cannot be averaged
    every = np.ones(int(studies.rows_of(split).sum()), bool)
    seen = [unseen_by(member, studies, split, allow_alike) for member in members]
    kept = np.logical_and.reduce([every, *seen])
    if not kept.any():
        raise InputError(
            "each image to score was seen by some model of the ensemble; models of different folds "
            "or splits can be scored together only on another collection (data=)"
        )
    other = None if against is None else open_member(against, checkpoint, accelerator)
    new = every if other is None else unseen_by(other, studies, split, allow_alike)
    return Others(members, other, kept, new)


def member_logits(member: Member, studies: Studies, split: str, loading: Loading) -> Floats:
    given = loading.batch_size, loading.num_workers, loading.precision
    return logits_of(member, studies, split, *given)
