"""Probe a trained model: score changed images and judge the scores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fluoroscope.console import Progress
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.samplers import Draw
from fluoroscope.data.study_table import Studies
from fluoroscope.probes.changes import CHANGES, changed
from fluoroscope.probes.judgement import CALLED, OPEN, UNCHANGED, LabelProbes, judge
from fluoroscope.probes.masks import Lungs
from fluoroscope.probes.sentences import MACRO
from fluoroscope.trained.forward import predict_batches
from fluoroscope.trained.loading import Trained


@dataclass(frozen=True)
class Probes:
    """The entry `probes` of `evaluation.json`.

    Attributes:
        summary: how many labels are called out, in words.
        called_out: the sentences of all probes that are called out.
        lungs: `masks`, `phantom` or `ellipse`, where the lungs were taken from.
        lungs_words: the same as a sentence.
        labels: by name; also `macro` if several labels are judged.
    """

    summary: str
    called_out: list[str]
    lungs: str
    lungs_words: str
    labels: dict[str, LabelProbes]


def find_lungs(
    studies: Studies, rows: NDArray[np.integer], size_px: int, masks: str | None
) -> Lungs:
    """Where the lungs of images are; checks all masks before anything is scored.

    Args:
        rows: of the images in the study table.
        size_px: S, side of the network's input.
        masks: folder of masks, or None.

    Raises:
        InputError: see `Lungs` and `Lungs.check`.
    """
    table, survey = studies.table.iloc[rows], studies.survey.iloc[rows]
    paths = dict(zip(rows.tolist(), table["path"], strict=True))
    ratios = dict(zip(paths, survey["height"] / survey["width"], strict=True))
    folder = None if masks is None else Path(masks)
    lungs = Lungs(paths, size_px, folder, studies.source == "phantom", ratios)
    lungs.check()
    return lungs


def probe(
    trained: Trained,
    data: XrayDataModule,
    rows: NDArray[np.integer],
    lungs: Lungs,
    why_not: Mapping[str, str],
) -> Probes:
    """Score every image once per change, and judge the scores.

    Args:
        data: loads the images; without a trainer.
        rows: of the images in the study table, each one of `lungs`.
        why_not: by label to score, why it is not judged; empty if it is.
    """
    scored = data.table.iloc[rows]
    table = pd.DataFrame({"group": pd.factorize(scored["patient"])[0]})
    table = table.assign(**{label: scored[label].to_numpy() for label in why_not})
    order = [trained.labels.index(label) for label in why_not]
    logits = {name: found[:, order] for name, found in _score(trained, data, rows, lungs).items()}
    view = scored["view"]
    views = None if view.isna().all() else view.fillna("unknown").astype(str).tolist()
    return _content(judge(table, logits, why_not, views), lungs)


def _score(
    trained: Trained, data: XrayDataModule, rows: NDArray[np.integer], lungs: Lungs
) -> dict[str, NDArray[np.float32]]:
    """Logits [N, K] of the unchanged images and of each change; each file is read once."""
    names = (UNCHANGED, *CHANGES)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    batches = _changed_batches(data, rows, lungs)
    for place, (logits, _) in enumerate(predict_batches(trained, batches)):
        found[names[place % len(names)]].append(logits)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _changed_batches(
    data: XrayDataModule, rows: NDArray[np.integer], lungs: Lungs
) -> Iterator[Tensor]:
    """Of each batch, the unchanged images and then those of each change, uint8 [B, 1, S, S]."""
    draws: list[Draw] = [(row, 0, 0) for row in rows.tolist()]
    with Progress("probing images", len(draws)) as progress:
        for batch in data.drawn_dataloader("all", draws):
            yield batch["image"]
            images = batch["image"][:, 0].numpy()
            regions = np.stack([lungs.region(row) for row in batch["index"].tolist()])
            for name in CHANGES:
                yield torch.from_numpy(changed(name, images, regions))[:, None]
            progress.advance(len(images))


def _content(labels: dict[str, LabelProbes], lungs: Lungs) -> Probes:
    probes = {name: list(found.probes.values()) for name, found in labels.items()}
    called = {name for name, of in probes.items() if any(p.verdict == CALLED for p in of)}
    undecided = {name for name, of in probes.items() if any(p.verdict == OPEN for p in of)} - called
    judged = len([name for name in probes if probes[name] and name != MACRO])
    words = [p.words for of in probes.values() for p in of if p.words]
    summary = _summary(judged, len(called - {MACRO}), len(undecided - {MACRO}), MACRO in called)
    return Probes(summary, words, lungs.source, lungs.words, labels)


def _summary(judged: int, called: int, undecided: int, mean_called: bool = False) -> str:
    """Without a full stop.

    >>> _summary(3, 1, 2)
    '1 of 3 labels is called out, 2 are not decided'
    >>> _summary(3, 0, 0)
    'no label is called out'
    >>> _summary(2, 0, 1, mean_called=True)
    'no label is called out, 1 is not decided; the mean of the labels is called out'
    """
    if not judged:
        return "no label has enough images to be judged"
    number = f"{called} of {judged}" if called else "no"
    text = f"{number} label{'s' if called and judged > 1 else ''} {_are(max(called, 1))} called out"
    text += f", {undecided} {_are(undecided)} not decided" if undecided else ""
    return f"{text}; the mean of the labels is called out" if mean_called and not called else text


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
