"""The audit comes before the copy and can stop it; its findings are tested in `tests/audit`."""

import json
from pathlib import Path

import pytest

from fluoroscope.errors import InputError
from fluoroscope.prepare import prepare_jobs
from tests.prepare.test_copying import checked, write_half
from tests.support.collections import write_nih14


@pytest.fixture
def words(films, tmp_path):
    """A collection whose official test list splits the images of some patients."""
    root = write_nih14(films, tmp_path / "nih14")
    names = sorted(path.name for path in (root / "images").iterdir())
    (root / "test_list.txt").write_text("\n".join(names[:9] + names[10:20]))
    return ["data=nih14", f"data.root={root}", "data.labels=[Pneumonia]", f"out={tmp_path}/out"]


def findings(folder):
    return {f["name"]: f for f in json.loads((folder / "audit.json").read_text())["findings"]}


def test_hard_findings_stop_the_copy_and_leave_the_report(words, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"the audit found 1 problem .*audit=false copies"):
        prepare_jobs.main(checked(*words))
    written = sorted(path.name for path in out.iterdir())
    assert written == ["audit.csv", "audit.html", "audit.json"]
    found = findings(out)["patients-in-two-splits"]
    assert (found["hard"], found["count"]) == (True, 2)
    assert str(tmp_path) not in (out / "audit.json").read_text()
    prepare_jobs.main(checked(*words, "audit=false"))  # into the same folder
    assert json.loads((out / "prepared.json").read_text())["finished"]


def test_the_splits_that_are_looked_at_are_those_of_the_keys(words, tmp_path):
    prepare_jobs.main(checked(*words, "data.splits=own"))
    assert "patients-in-two-splits" not in findings(tmp_path / "out")
    assert (tmp_path / "out/studies.parquet").exists()


def test_the_report_alone_copies_nothing(words, tmp_path):
    prepare_jobs.main(checked(*words, "data.splits=own", "audit=only", "name_images=true"))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["audit.csv", "audit.html", "audit.json"]


@pytest.mark.parametrize("audit", ["true", pytest.param("only", marks=pytest.mark.whole)])
def test_a_full_disk_is_reported_in_one_sentence(words, tmp_path, monkeypatch, audit):
    words = [*words, "data.splits=own", f"audit={audit}"]
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", write_half)
        with pytest.raises(InputError, match=r"^out: cannot write .*out \(No space.*same command"):
            prepare_jobs.main(checked(*words))
    prepare_jobs.main(checked(*words))
    assert findings(tmp_path / "out")


def test_unreadable_images_are_findings_unless_they_are_skipped(words, tmp_path):
    images = sorted((tmp_path / "nih14/images").iterdir())
    images[30].write_bytes(images[30].read_bytes()[:-30])
    words = [*words, "data.splits=own", "audit=only"]
    with pytest.raises(InputError, match="the audit found 1 problem"):
        prepare_jobs.main(checked(*words))
    assert findings(tmp_path / "out")["unreadable-images"]["count"] == 1
    prepare_jobs.main(checked(*words, "data.on_unreadable=skip"))
    written = json.loads((tmp_path / "out/audit.json").read_text())
    assert (written["images"], written["skipped"]) == (119, 1)
    assert "unreadable-images" not in findings(tmp_path / "out")


def test_labels_that_nobody_chose_stop_no_copy(words, tmp_path):
    """All 14 of NIH, of which the films show two."""
    rest = [word for word in words if not word.startswith("data.labels")]
    prepare_jobs.main(checked(*rest, "data.splits=own"))
    found = findings(tmp_path / "out")["label-without-both-classes"]
    assert not found["hard"]
    assert (tmp_path / "out/studies.parquet").exists()
    with pytest.raises(InputError, match=r"the audit found \d problems"):
        prepare_jobs.main(
            checked(*rest, "data.splits=own", "data.labels=[Pneumonia,Mass]", "audit=only")
        )
    sentence = findings(tmp_path / "out")["no-splits"]["sentence"]
    assert "too few patients (0) have an image with 'Mass'" in sentence


@pytest.mark.parametrize("on_duplicate", ["drop", pytest.param("keep", marks=pytest.mark.whole)])
def test_copies_that_the_keys_deal_with_stop_no_copy(words, tmp_path, on_duplicate):
    images = sorted((tmp_path / "nih14/images").iterdir())
    images[1].write_bytes(images[-1].read_bytes())
    words = [*words, "data.splits=own", "data.val_frac=0.4", "data.test_frac=0.4"]
    for image in images[2:60:3]:  # of many patients: some of them are in other splits
        image.write_bytes(images[-1].read_bytes())
    with pytest.raises(InputError, match="the audit found 1 problem"):
        prepare_jobs.main(checked(*words))
    prepare_jobs.main(checked(*words, f"data.on_duplicate={on_duplicate}"))
    found = findings(tmp_path / "out")["copies-across-splits"]
    assert not found["hard"]
    assert f"data.on_duplicate={on_duplicate}" in found["advice"]


def test_a_collection_for_testing_alone_can_be_copied(films, tmp_path):
    root = write_nih14(films, tmp_path / "nih14")
    names = sorted(path.name for path in (root / "images").iterdir())
    (root / "test_list.txt").write_text("\n".join(names))
    words = ["data=nih14", f"data.root={root}", "data.labels=[Pneumonia]", f"out={tmp_path}/out"]
    prepare_jobs.main(checked(*words))
    assert not findings(tmp_path / "out")["empty-split"]["hard"]
    assert (tmp_path / "out/studies.parquet").exists()
