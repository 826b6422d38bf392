"""NIH ChestX-ray14."""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.data.studies import Collection, first_three, select_labels, study_table
from fluoroscope.errors import InputError
from fluoroscope.sources.cells import read_csv, read_patients, read_views, require_column
from fluoroscope.sources.roots import existing_root

CSVS = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS = ("test_list.txt", "train_val_list.txt")
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening"),
    *("Pneumonia", "Pneumothorax"),
)


def read(root: str | Path | None, labels: Sequence[str] | None = None) -> Collection:
    """NIH ChestX-ray14 as downloaded; images on the official test list are the test split.

    Labels are the 14 findings (default) and `No Finding`; a finding the CSV does not name is 0.
    The lists may name images that the CSV does not have.

    Raises:
        InputError: for a missing CSV or column, and where both official lists are present, for an
            image of the CSV that is in neither or in both.
    """
    directory = existing_root(root)
    files = [directory / name for name in CSVS if (directory / name).is_file()]
    if not files:
        raise InputError(f"data.root: {directory} holds no {' or '.join(CSVS)}")
    cells = read_csv(files[0])
    for column in ("Image Index", "Finding Labels", "Patient ID", "View Position"):
        require_column(cells, column, "data=nih14", files[0])
    wanted = FINDINGS if labels is None else labels
    chosen = select_labels([*FINDINGS, "No Finding"], wanted)
    names = list(cells["Image Index"])
    table = study_table(
        _paths(directory, names),
        cells["Finding Labels"].str.get_dummies("|").reindex(columns=chosen, fill_value=0),
        patients=read_patients(cells["Patient ID"], files[0]),
        splits=_splits(directory, names),
        views=read_views(cells["View Position"]),
    )
    return Collection(table, directory)


def _paths(root: Path, names: list[str]) -> list[Path]:
    folders = [root / "images", *sorted(root.glob("images_*/images"))]
    found = {path.name: path for f in folders if f.is_dir() for path in f.iterdir()}
    return [found.get(name, root / "images" / name) for name in names]


def _splits(root: Path, names: list[str]) -> list[str | None]:
    test, train_val = (_listed(root / name) for name in LISTS)
    if test is None:
        return [None] * len(names)
    if train_val is not None:
        _check_lists(names, test, train_val)
    return ["test" if name in test else None for name in names]


def _listed(file: Path) -> set[str] | None:
    return set(file.read_text(encoding="utf-8-sig").split()) if file.is_file() else None


def _check_lists(names: list[str], test: set[str], train_val: set[str]) -> None:
    neither = [name for name in names if name not in test and name not in train_val]
    both = [name for name in names if name in test and name in train_val]
    for wrong, where in ((neither, "neither"), (both, "both")):
        if wrong:
            raise InputError(
                f"{len(wrong)} of {len(names)} images are in {where} of {' and '.join(LISTS)}: "
                f"{first_three(wrong)}; take the lists of the same release as the CSV, or remove "
                f"{LISTS[1]} to train on all that {LISTS[0]} does not hold"
            )
