"""A first look at a collection: whether a run finds its images, and can read some."""

import time
from typing import Any

from omegaconf import OmegaConf

from fluoroscope import sources
from fluoroscope.commands import called
from fluoroscope.config.train import Train
from fluoroscope.doctor.check import BAD, OK, Found, describe
from fluoroscope.errors import InputError, plural

FILMS = 5
DRAWN = "phantom"


def collection(cfg: Train) -> Found:
    """Read the tables, look up every image, and decode a few."""
    from fluoroscope.data.study_table import label_columns
    from fluoroscope.files.images import decode

    data: Any = OmegaConf.to_container(cfg.data)
    if data["source"] == DRAWN:
        return Found(OK, "not looked at; add data=NAME data.root=DIR")
    advice = f"{called('prepare')} with the same data.* keys and audit=only tells more"
    try:
        table = sources.load_section(data).table
    except InputError as error:
        return Found(BAD, f"data={data['source']}: {describe(error)}", advice)
    paths = table["path"].tolist()
    started = time.monotonic()
    unreadable = 0
    for path in paths[:: max(1, len(paths) // FILMS)][:FILMS]:
        try:
            decode(path)
        except Exception:  # of any codec
            unreadable += 1
    tried = min(FILMS, len(paths))
    per_film = (time.monotonic() - started) / tried
    text = (
        f"data={data['source']}: {plural(len(paths), 'image')} of "
        f"{plural(table['patient'].nunique(), 'patient')}, "
        f"{plural(len(label_columns(table)), 'label')}; {per_film * 1000:.0f} ms to read one"
    )
    if unreadable:
        return Found(BAD, f"{text}; {unreadable} of {tried} cannot be decoded", advice)
    return Found(OK, text)
