"""A user adds a source as one module; the configuration finds it."""

import os
import subprocess
import sys

import pytest

from fluoroscope import sources
from fluoroscope.errors import InputError
from tests.config.test_config import changed, refusal

TOY = """
from dataclasses import dataclass

from fluoroscope.config.data_keys import Data
from fluoroscope.config.schema import one_of
from fluoroscope.data.study_table import Collection, study_table


@dataclass
class Keys(Data):
    hospital: str = one_of("north", "south")


def read(root, labels=None, hospital="north"):
    import pandas as pd

    images = sorted(root.glob(f"{hospital}*.png"))
    return Collection(study_table(images, pd.DataFrame({"Mass": [1.0] * len(images)})), root)
"""


def test_every_source_declares_its_keys_without_pandas_or_pytorch():
    code = (
        "import sys; from fluoroscope import sources\n"
        "assert {'phantom', 'nih14'} <= {*map(str, sources.names())}\n"
        "for name in sources.names(): sources.keys_of(name)\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pyarrow', 'cv2', 'pydicom', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env=os.environ, timeout=60)
    assert done.returncode == 0


def test_a_new_source_is_one_module(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "north1.png").touch()
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "fluoroscope.sources.toy", raising=False)
    toy = ["data.source=toy", f"data.root={tmp_path}"]
    drop = {"patients", "images_per_patient", "film_px", "subtlety", "prevalence"}
    with pytest.raises(InputError, match="there is no key data"):
        changed(*toy, "data.hospital=north")  # the phantom's keys are not the toy's
    assert drop.isdisjoint(sources.keys_of("toy").__dataclass_fields__)
    assert "toy" in refusal("data.source=toi")
    assert list(sources.load("toy", tmp_path, hospital="north").table["Mass"]) == [1.0]
