"""The names of findings: which labels of different collections mean the same finding.

The study table keeps the spelling of its collection. Names are translated where a user writes one
(`data.labels`), where a checkpoint is scored on another collection, and where collections are
joined. Two labels match if `FINDINGS` lists both spellings under one name. Capitals, spaces,
hyphens and underscores do not count. Labels that look alike but are defined differently are in
`APART`. A spelling in neither table stands for itself.

Source: the label lists of Wang et al. 2017 (ChestX-ray14), Irvin et al. 2019 (CheXpert), Johnson et
    al. 2019 (MIMIC-CXR-JPG), Bustos et al. 2020 (PadChest, tree of findings), Nguyen et al. 2022
    (VinDr-CXR), Shih et al. 2019 (RSNA), Rahman et al. 2021 (COVID), Kermany et al. 2018, Jaeger et
    al. 2014 (Shenzhen), Yang et al. 2023 (MedMNIST).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from fluoroscope.errors import InputError

# The name of a finding, and its other spellings.
FINDINGS = {
    "Aortic Enlargement": (),
    "Atelectasis": ("atelectases",),
    "Bacterial Pneumonia": ("Bacterial",),
    "COPD": ("COPD signs",),
    "COVID-19": ("COVID", "COVID19"),
    "Cardiomegaly": ("enlarged heart",),
    "Clavicle Fracture": (),
    "Consolidation": (),
    "Edema": ("oedema", "pulmonary edema", "pulmonary oedema", "lung edema"),
    "Emphysema": (),
    "Enlarged Cardiomediastinum": (),
    "Enlarged Pulmonary Artery": ("Enlarged PA", "pulmonary artery enlargement"),
    "Hernia": ("hiatal hernia", "hiatus hernia"),
    "Lung Cavity": ("cavitation",),
    "Lung Opacity": ("Airspace Opacity",),
    "Mass": ("pulmonary mass", "lung mass"),
    "Mediastinal Shift": (),
    "Nodule": ("pulmonary nodule", "lung nodule"),
    "Normal": (),
    "Pleural Effusion": ("Effusion",),
    "Pleural Thickening": (),
    "Pneumonia": (),
    "Pneumothorax": (),
    "Pulmonary Fibrosis": ("Fibrosis", "lung fibrosis"),
    "Rib Fracture": (),
    "Support Devices": (),
    "Tuberculosis": ("TB", "pulmonary tuberculosis"),
    "Viral Pneumonia": ("Viral",),
}


class Apart(NamedTuple):
    """A label that no other collection has, whatever its name is there."""

    spelling: str
    sources: tuple[str, ...]  # that share the definition
    reason: str

    @property
    def name(self) -> str:
        return f"{self.spelling} ({self.sources[0]})"


NIH, REPORTED = ("nih14", "medmnist"), ("chexpert", "mimic_cxr")
_VAGUE = "reports and readers use the word for different shadows"
_REST = "it means that none of the collection's own findings is there, and their lists differ"
APART = (
    Apart("Infiltration", NIH, _VAGUE),
    Apart("Infiltration", ("vindr",), _VAGUE),
    Apart("infiltrates", ("padchest",), "it also covers interstitial and alveolar patterns"),
    Apart("No Finding", NIH, _REST),
    Apart("No Finding", REPORTED, _REST),
    Apart("No finding", ("vindr",), _REST),
    Apart("Lung Opacity", ("rsna", "covid"), "only opacities that suggest pneumonia are drawn"),
    Apart("mass", ("padchest",), "masses outside the lungs are included"),
    Apart("Lung Lesion", REPORTED, "nodules, masses and other lesions together"),
    Apart("Nodule/Mass", ("vindr",), "nodules and masses together"),
    Apart("Fracture", REPORTED, "fractures of any bone"),
    Apart("fracture", ("padchest",), "only fractures whose bone is not named"),
    Apart("Pleural Other", REPORTED, "what is neither effusion nor pneumothorax"),
    Apart("ILD", ("vindr",), "a diagnosis; PadChest names patterns"),
)
# Sources whose labels have the names that a user gave them.
OWN = ("table", "folder")


class Name(NamedTuple):
    """A label as a source spells it; no source: as a user writes it."""

    spelling: str
    source: str | None = None


def plain(spelling: str) -> str:
    """A spelling without capitals, hyphens and underscores.

    >>> plain("Pleural_Thickening")
    'pleural thickening'
    """
    return re.sub(r"[\s_-]+", " ", spelling).strip().casefold()


@cache
def _finding_of() -> dict[str, str]:
    return {
        plain(word): name for name, spellings in FINDINGS.items() for word in (name, *spellings)
    }


def finding(name: Name) -> str:
    """The finding that a label means; for a label of neither table its plain spelling.

    >>> finding(Name("Effusion", "nih14")), finding(Name("Infiltration", "medmnist"))
    ('Pleural Effusion', 'Infiltration (nih14)')
    """
    word = plain(name.spelling)
    for apart in APART:
        # A user who writes `Pneumonia` means the finding. `Lung Opacity (rsna)` names one label.
        if word == plain(apart.name) or (
            name.source in apart.sources and word == plain(apart.spelling)
        ):
            return apart.name
    return _finding_of().get(word, word)


def counterparts(wanted: Name, available: Sequence[Name]) -> list[Name]:
    """The labels that mean the same as `wanted`: by spelling, by finding, or by plain spelling.

    A spelling alone counts only if a user chose one of the two: two public collections may spell
    different findings alike.
    """
    free = [name for name in available if _comparable(wanted, name)]
    exact = [name for name in free if name.spelling == wanted.spelling]
    alike = [name for name in available if finding(name) == finding(wanted)]
    return exact or alike or [name for name in free if _word(name) == _word(wanted)]


def _comparable(one: Name, other: Name) -> bool:
    if {finding(one), finding(other)} <= {apart.name for apart in APART}:
        return False
    chosen = {None, *OWN} & {one.source, other.source}
    return bool(chosen) or one.source == other.source


def _word(name: Name) -> str:
    """The plain spelling, without the source that several collections add to it."""
    own = {apart.name: apart.spelling for apart in APART}
    return plain(own.get(name.spelling, name.spelling))


def names_of(
    labels: Sequence[str], source: str | None, label_map: Mapping[str, str] | None = None
) -> dict[str, Name]:
    """By label, the name that it stands for: the one in `data.label_map`, or its own."""
    given = {label: Name(meant) for label, meant in (label_map or {}).items()}
    return {label: given.get(label, Name(label, source)) for label in labels}


def pair(wanted: Mapping[str, Name], available: Mapping[str, Name]) -> dict[str, str]:
    """The available label for each wanted one that has a counterpart.

    Args:
        wanted, available: results of `names_of`.

    Raises:
        InputError: several available labels mean the same as one that is wanted.
    """
    pairs = {}
    for label, name in wanted.items():
        same = counterparts(name, list(available.values()))
        found = [other for other, its in available.items() if its in same]
        if len(found) > 1:
            raise InputError(
                f"data.labels: {label!r} can mean {' or '.join(map(repr, found))}; write one of "
                "these names"
            )
        if found:
            pairs[label] = found[0]
    return pairs


def reasons(labels: Sequence[str]) -> str:
    """Why labels of `APART` have no counterpart, to be appended to an error.

    >>> reasons(["Nodule/Mass", "Edema"])
    '; Nodule/Mass is a label of its own: nodules and masses together'
    """
    told = {
        f"; {label} is a label of its own: {apart.reason}": None
        for label in labels
        for apart in APART
        if plain(label) in (plain(apart.spelling), plain(apart.name))
    }
    return "".join(told)
