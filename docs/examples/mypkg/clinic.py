"""A source of data: films whose names begin with the patient, and a table of findings."""

from dataclasses import dataclass

from fluoroscope.config.data_keys import Data


@dataclass
class Keys(Data):
    """What the command line can set: data.table=FILE data.site=south."""

    table: str = "findings.csv"
    site: str | None = None  # null: all


def read(root, labels=None, table="findings.csv", site=None):
    """The films of the folder; called with the keys above."""
    import pandas as pd  # here, because Keys are read before anything heavy is imported

    from fluoroscope.data.study_table import Collection, study_table
    from fluoroscope.sources import existing_root

    root = existing_root(root)
    rows = pd.read_csv(root / table)
    rows = rows if site is None else rows[rows["site"] == site]
    names = labels or [name for name in rows if name not in ("file", "patient", "site")]
    films = [root / name for name in rows["file"]]
    return Collection(study_table(films, rows[names].astype(float), rows["patient"]), root)
