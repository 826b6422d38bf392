"""The table whose rows an audit numbers: `audit.csv`."""

import pandas as pd

from fluoroscope.audit.findings import Studies
from fluoroscope.data.study_table import TABLE_COLUMNS

TABLE = "audit.csv"
SURVEYED = ["width", "height", "reason"]


def audit_table(studies: Studies, survey: pd.DataFrame, name_images: bool = False) -> pd.DataFrame:
    """One row per image of the studies, in their order, with the column `row` of its number.

    The other columns are `group` (the patient as a running number), `split`, `view`, the labels,
    `width` and `height` in px, and `reason`, why the image cannot be used.

    Args:
        studies, survey: of `inspection.inspect`.
        name_images: add `path` and `patient`, which identify patients.
    """
    table, survey = studies.table.reset_index(drop=True), survey.reset_index(drop=True)
    named = [*TABLE_COLUMNS[:2]] if name_images else []
    shown = table[[*named, *TABLE_COLUMNS[2:], *studies.labels]]
    shown.insert(0, "group", pd.factorize(table["patient"])[0])
    return pd.concat([shown, survey[SURVEYED]], axis=1).rename_axis("row").reset_index()
