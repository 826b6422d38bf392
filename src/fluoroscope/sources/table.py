"""A table of one's own: one row an image."""

from collections.abc import Sequence
from pathlib import Path

from fluoroscope.data.studies import Collection, study_table
from fluoroscope.sources import cells as cells_of
from fluoroscope.sources.roots import existing_root


def read(
    root: str | Path | None,
    *,
    csv: str | Path | None,
    path_column: str | None,
    labels: Sequence[str] | None,
    patient_column: str | None = None,
    split_column: str | None = None,
    view_column: str | None = None,
) -> Collection:
    """A CSV of one's own: one row an image, one column a label with 1, 0 or empty cells.

    Args:
        root: directory that `csv` and the paths in it start from; None: the directory of `csv`.
        csv: the file.
        path_column: column with the image's path.
        labels: label columns, required.
        patient_column: column with the patient; None makes every image its own patient.
        split_column: column with train, val, test or nothing.
        view_column: column with the view position.

    Raises:
        InputError: for a missing file or column and for a cell that cannot be used.
    """
    directory = None if root is None else existing_root(root)
    file = cells_of.find_csv(directory, csv)
    cells = cells_of.read_csv(file)
    columns = {"path": path_column, "patient": patient_column} | {
        "split": split_column,
        "view": view_column,
    }
    for name, column in columns.items():
        if column is not None or name == "path":
            cells_of.require_column(cells, column, f"data.{name}_column", file)
    base = directory or file.parent
    table = study_table(
        [base / name for name in cells[path_column]],
        cells_of.read_labels(cells, labels, used=columns.values(), file=file),
        patients=patient_column and cells_of.read_patients(cells[patient_column], file),
        splits=split_column and cells_of.read_splits(cells[split_column], file),
        views=view_column and cells_of.read_views(cells[view_column]),
    )
    return Collection(table, base)
