"""A copy is the collection, smaller: the same pixels, splits, labels and order."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from fluoroscope import build
from fluoroscope.command import entry
from fluoroscope.config import CONF
from fluoroscope.config.prepare import Audit, Job, check_prepare
from fluoroscope.data.study_table import Collection
from fluoroscope.errors import InputError
from fluoroscope.files.images import fit_square, read_image
from fluoroscope.prepare import collection_audit, copying, image_copy, prepare_jobs
from fluoroscope.prepare.image_copy import shrink
from tests.support.collections import write_nih14
from tests.support.films import config, write_films

SIZE = 37
SHAPES = [(37, 37), (36, 37), (80, 53), (31, 90), (37, 20), (200, 200), (3, 75), (20, 12), (41, 38)]


def checked(*words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_prepare(compose("prepare", [*words]), words)


def prepare(*words):
    """Copy as the command does, without the audit."""
    job = checked(f"size={SIZE}", "audit=false", *words)
    prepare_jobs.main(job)
    return job.out


@pytest.fixture(scope="module")
def nih14(films, tmp_path_factory):
    """The films as ChestX-ray14, every fifth patient on the official test list."""
    root = write_nih14(films, tmp_path_factory.mktemp("raw") / "nih14")
    names = sorted(path.name for path in (root / "images").iterdir())
    test = [name for name in names if int(name[:8]) % 5 == 0]
    (root / "test_list.txt").write_text("\n".join(test))
    return root


@pytest.fixture(scope="module")
def copied(nih14, tmp_path_factory):
    out = tmp_path_factory.mktemp("copy") / "nih14"
    return prepare("data=nih14", f"data.root={nih14}", f"out={out}")


@pytest.fixture
def shapes(tmp_path):
    """A table of images of many shapes and depths."""
    rng, root = np.random.default_rng(4), tmp_path / "shapes"
    root.mkdir()
    for i, shape in enumerate(SHAPES):
        image = rng.integers(0, 2**16 if i % 2 else 256, shape)
        cv2.imwrite(str(root / f"{i}.png"), image.astype(np.uint16 if i % 2 else np.uint8))
    rows = {"path": [f"{i}.png" for i in range(len(SHAPES))], "Mass": [i % 2 for i in range(9)]}
    pd.DataFrame(rows).to_csv(root / "own.csv", index=False)
    return ["data=table", f"data.root={root}", "data.csv=own.csv", "data.labels=[Mass]"]


def pairs(words, out):
    """Paths of the images, and of their copies."""
    raw = build.build_studies(config(*words), split=False).table
    copy = build.build_studies(config("data=prepared", f"data.root={out}"), split=False).table
    assert len(raw) == len(copy) > 0
    return list(zip(raw["path"], copy["path"], strict=True))


@pytest.mark.parametrize("kind", ["png", "stored"])
def test_at_the_size_of_training_raw_and_copy_are_the_same_pixels(shapes, tmp_path, kind):
    out = prepare(*shapes, f"format={kind}", f"out={tmp_path}/out")
    for (raw, copy), shape in zip(pairs(shapes, out), SHAPES, strict=True):
        small = cv2.imread(copy, cv2.IMREAD_UNCHANGED)
        assert (small.dtype, max(small.shape)) == (np.uint8, min(max(shape), SIZE))
        expected = fit_square(read_image(raw), SIZE)
        np.testing.assert_array_equal(fit_square(read_image(copy), SIZE), expected)


def test_a_turned_image_lies_upright_in_the_copy_and_is_counted_in_run_copy_and_audit(
    shapes, tmp_path
):
    turned = tmp_path / "shapes/3.png"  # higher than wide
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(turned).save(turned, exif=exif)
    out = prepare(*shapes, f"out={tmp_path}/out")
    for raw, copy in pairs(shapes, out):
        expected = fit_square(read_image(raw), SIZE)
        np.testing.assert_array_equal(fit_square(read_image(copy), SIZE), expected)
    told = "images turned or mirrored, as their orientation tag says"
    copied = build.build_studies(config("data=prepared", f"data.root={out}"), split=False)
    raw = build.build_studies(config(*shapes), split=False)
    for decisions in (raw.decisions, copied.decisions):
        assert [d.counts for d in decisions if d.policy == told] == [{"images": 1}]
    job = checked(*shapes, "audit=only", f"out={tmp_path}/audit")
    collection_audit.write_report(job, collection_audit.read_collection(job.train.data), job.out)
    report = json.loads((tmp_path / "audit/audit.json").read_text())
    assert told in json.dumps(report["decisions"])


def test_jpeg_is_near(nih14, tmp_path):
    words = ["data=nih14", f"data.root={nih14}"]
    out = prepare(*words, "format=jpeg", f"out={tmp_path}/out")
    errors = []
    for raw, copy in pairs(words, out):
        assert copy.endswith(".jpg")
        errors.append(np.abs(read_image(copy).astype(int) - fit_square(read_image(raw), SIZE)))
    assert 0 < np.mean(errors) < 2
    assert np.max(errors) < 16


def test_a_small_image_is_not_enlarged_and_a_large_one_keeps_its_ratio():
    small = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert shrink(small, 3) is small
    np.testing.assert_array_equal(shrink(np.full((40, 10), 7, np.uint8), 8), np.full((8, 2), 7))
    assert shrink(np.zeros((1, 1000), np.uint8), 10).shape == (1, 10)


KEYS = [
    [],
    ["data.splits=own"],
    ["data.fold=2/3"],
    ["data.views=[PA]", "data.labels=[Pneumonia]", "data.val_frac=0.3"],
    ["data.sampler=balanced"],
]


@pytest.mark.parametrize("keys", KEYS)
def test_a_run_on_the_copy_sees_what_a_run_on_the_collection_sees(nih14, copied, keys):
    usual = ["data.labels=[Pneumonia,Infiltration]", f"data.image_px={SIZE}", "data.num_workers=0"]
    both = []
    for words in (["data=nih14", f"data.root={nih14}"], ["data=prepared", f"data.root={copied}"]):
        cfg = config("backbone=lite0", *words, *usual, *keys)
        studies = build.build_studies(cfg)
        data = build.build_data(cfg, studies)
        both.append((studies, data, list(data.train_dataloader())))
    (raw, raw_data, raw_epoch), (copy, copy_data, copy_epoch) = both
    columns = ["patient", "split", "view", *raw.labels]
    pd.testing.assert_frame_equal(raw.table[columns], copy.table[columns])
    assert (raw.labels, raw.patients_of) == (copy.labels, copy.patients_of)
    assert list(raw_data.train_sampler()) == list(copy_data.train_sampler())
    assert len(raw_epoch) == len(copy_epoch) > 1
    for a, b in zip(raw_epoch, copy_epoch, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("image", "target", "index"))


def test_labels_that_no_run_asked_for_are_there_too(nih14, copied):
    raw = build.build_studies(config("data=nih14", f"data.root={nih14}"), split=False)
    copy = build.build_studies(config("data=prepared", f"data.root={copied}"), split=False)
    assert raw.labels == copy.labels
    assert len(raw.labels) == 14
    np.testing.assert_array_equal(raw.table[raw.labels], copy.table[copy.labels])


def test_nothing_but_the_table_names_a_patient(nih14, copied):
    names = {path.stem for path in (nih14 / "images").iterdir()}
    found = [path for path in copied.rglob("*") if path.suffix in (".png", ".json", ".csv")]
    texts = [str(path.relative_to(copied)) for path in found]
    texts += [path.read_text() for path in found if path.suffix != ".png"]
    assert len(found) > 100
    assert not [name for name in names for text in texts if name in text]
    assert str(nih14) not in "".join(texts)
    assert (copied / "prepared.json").exists()


def test_the_description_is_written_beside_the_copy(nih14, copied):
    about = json.loads((copied / "prepared.json").read_text())
    facts = {key: about[key] for key in ("source", "size", "format", "images", "patients")}
    assert facts == {
        "source": "nih14",
        "size": SIZE,
        "format": "png",
        "images": 120,
        "patients": 40,
    }
    assert (about["finished"], about["left_out"], about["patients_of"]) == (True, 0, "nih14")
    assert about["keys"]["views"] is None
    table = pd.read_parquet(copied / "studies.parquet")
    assert list(table.columns[:5]) == ["path", "patient", "split", "view", "source"]
    assert set(table["source"]) == {"nih14"}
    assert set(table["split"].dropna()) == {"test"}  # val and train are drawn by each run


@pytest.fixture
def counted(monkeypatch):
    """The images that are written, each once more than `stop` raises its error."""
    state = SimpleNamespace(written=[], stop=None, error=None)
    original = image_copy.copy_image

    def copy_image(source, target, *rest):
        if state.stop is not None and len(state.written) >= state.stop:
            raise state.error
        written = original(source, target, *rest)
        state.written.append(source)
        return written

    monkeypatch.setattr(copying, "copy_image", copy_image)
    monkeypatch.setattr(copying, "cores", lambda: 1)
    return state


def contents(out):
    """Bytes of each file, and the description without its time."""
    files = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    about = {**json.loads((out / "prepared.json").read_text()), "made": ""}
    kept = {name: data for name, data in files.items() if name.suffix in (".png", ".parquet")}
    return kept | {"about": about}


STOPS = [
    (KeyboardInterrupt(), SystemExit, 130, "run the same command again"),
    (SystemExit(143), SystemExit, 143, "run the same command again"),
    (OSError(28, "No space left on device", "x.png"), InputError, None, ""),
]


@pytest.mark.parametrize(("error", "kind", "code", "message"), STOPS)
def test_an_interrupted_copy_resumes(
    nih14, copied, tmp_path, counted, capsys, error, kind, code, message
):
    words = ["data=nih14", f"data.root={nih14}", f"out={tmp_path}/out"]
    counted.stop, counted.error = 50, error
    with pytest.raises(kind) as stopped:
        prepare(*words)
    assert getattr(stopped.value, "code", None) == code
    assert message in capsys.readouterr().err
    if code is None:
        assert "No space left on device" in str(stopped.value)
        assert "run the same command again to continue" in str(stopped.value)
    out = tmp_path / "out"
    assert not (out / "studies.parquet").exists()
    with pytest.raises(InputError, match="is not finished"):
        build.build_studies(config("data=prepared", f"data.root={out}"))
    first, counted.written, counted.stop = list(counted.written), [], None
    prepare(*words)
    assert len(first) == 50
    assert len(set(first) & set(counted.written)) <= 4  # started, and not listed yet
    assert set(first) | set(counted.written) == {str(p) for p in (nih14 / "images").iterdir()}
    assert contents(out) == contents(copied)


@pytest.mark.parametrize("stop", [0, 3])
def test_a_later_call_that_was_stopped_leaves_no_mixture_to_be_read(
    shapes, tmp_path, counted, stop
):
    words = [*shapes, f"out={tmp_path}/out"]
    out = prepare(*words)
    for source in map(str, (tmp_path / "shapes").glob("*.png")):
        cv2.imwrite(source, ~cv2.imread(source, cv2.IMREAD_UNCHANGED))
    counted.written, counted.stop, counted.error = [], stop, KeyboardInterrupt()
    with pytest.raises(SystemExit):
        prepare(*words)
    with pytest.raises(InputError, match="is not finished"):
        build.build_studies(config("data=prepared", f"data.root={out}"))
    counted.stop = None
    prepare(*words)
    for raw, copy in pairs(shapes, out):
        np.testing.assert_array_equal(read_image(copy), shrink(read_image(raw), SIZE))


def test_a_stopped_call_without_new_images_leaves_the_copy_finished(shapes, tmp_path, monkeypatch):
    words = [*shapes, f"out={tmp_path}/out"]
    before = contents(prepare(*words))

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(copying.copy_table, "write", stopped)
    with pytest.raises(SystemExit):
        prepare(*words)
    assert contents(tmp_path / "out") == before


def write_half(file, text, **options):
    """`Path.write_text` on a full disk."""
    file.write_bytes(text.encode()[:5])
    raise OSError(28, "No space left on device", str(file))


def test_a_copy_resumes_after_a_full_disk(shapes, tmp_path, monkeypatch):
    words = [*shapes, f"out={tmp_path}/out"]
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", write_half)
        with pytest.raises(InputError, match=r"No space left on device.*same command again"):
            prepare(*words)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "out/.prepared.json.part").write_text("{")  # of a kill
    out = prepare(*words)
    assert sorted(file.name for file in out.iterdir() if file.is_file()) == [
        "copied.csv",
        "prepared.json",
        "studies.parquet",
    ]


def test_copies_that_no_row_names_any_more_are_removed(shapes, tmp_path, capsys):
    words = [*shapes, f"out={tmp_path}/out"]
    out, table = prepare(*words), tmp_path / "shapes/own.csv"
    copies = [copy for _, copy in pairs(shapes, out)]
    everything = pd.read_csv(table)
    everything[2:].to_csv(table, index=False)
    (tmp_path / "shapes/0.png").unlink()
    mine = [tmp_path / "mine.png", out / "mine.png", out / "images/mine.png"]
    for file in mine:
        file.write_bytes(b"mine")
    with (out / "copied.csv").open("a") as log:
        log.writelines(f"{name},1,1,4\n" for name in ("../mine.png", "mine.png", mine[0]))
    capsys.readouterr()
    prepare(*words)
    assert (
        "removed copies of images that are no longer in the table: 2\n" in capsys.readouterr().out
    )
    assert [copy for _, copy in pairs(shapes, out)] == copies[2:]
    assert {*map(str, out.rglob("*.png"))} == {*copies[2:], *map(str, mine[1:])}
    assert mine[0].exists()
    done = (out / "copied.csv").read_text()
    assert [os.path.relpath(copy, out) in done for copy in copies] == [False] * 2 + [True] * 7
    prepare(*words)
    assert "removed" not in capsys.readouterr().out


def test_only_what_changed_or_is_damaged_is_copied_again(nih14, tmp_path, counted):
    root = tmp_path / "raw"
    write_nih14(write_films(tmp_path / "films"), root)
    words = ["data=nih14", f"data.root={root}", f"out={tmp_path}/out"]
    out = prepare(*words)
    everything, counted.written = contents(out), []
    prepare(*words)
    assert counted.written == []
    assert contents(out) == everything

    sources = sorted(map(str, (root / "images").iterdir()))
    copies = dict(pairs(words[:2], out))
    touched, changed, gone, short, cut = sources[:5]
    os.utime(touched, ns=(0, 0))
    cv2.imwrite(changed, 255 - cv2.imread(changed, 0))
    os.remove(copies[gone])
    with open(copies[short], "r+b") as file:
        file.truncate(10)
    log = (out / "copied.csv").read_text().splitlines(keepends=True)
    name = os.path.relpath(copies[cut], out)
    rest = [line for line in log if not line.startswith(name)]
    (out / "copied.csv").write_text("".join(rest) + f"{name},123")  # killed within a line
    (out / "images/.x.png.part").write_bytes(b"half")
    prepare(*words)
    assert sorted(counted.written) == [touched, changed, gone, short, cut]
    mine = fit_square(read_image(changed), SIZE)
    np.testing.assert_array_equal(read_image(copies[changed]), mine)
    counted.written = []
    prepare(*words)
    assert counted.written == []


def test_other_keys_of_the_table_make_it_anew_and_copy_nothing(nih14, tmp_path, counted):
    words = ["data=nih14", f"data.root={nih14}", f"out={tmp_path}/out"]
    out = prepare(*words)
    counted.written = []
    prepare(*words, "data.labels=[Infiltration]")
    assert counted.written == []
    copy = build.build_studies(config("data=prepared", f"data.root={out}"), split=False)
    assert copy.labels == ["Infiltration"]
    assert json.loads((out / "prepared.json").read_text())["keys"]["labels"] == ["Infiltration"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["size=38"], "holds a copy with size=37, not 38"),
        (["format=jpeg"], "holds a copy with format=png, not jpeg"),
        (["data=folder"], "holds a copy with source=nih14, not folder"),
    ],
)
def test_a_copy_of_another_kind_is_refused(nih14, copied, words, message):
    before = contents(copied)
    with pytest.raises(InputError, match=message):
        copying.main(
            checked("size=37", "data=nih14", f"data.root={nih14}", f"out={copied}", *words)
        )
    assert contents(copied) == before


def test_a_folder_with_other_things_stays_as_it_is(nih14, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        prepare("data=nih14", f"data.root={nih14}", f"out={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.fixture
def damaged(tmp_path, films):
    root = write_nih14(films, tmp_path / "damaged")
    for path in sorted((root / "images").iterdir())[3:5]:
        path.write_bytes(path.read_bytes()[:-30])
    return root


def test_unreadable_images_stop_the_copy_or_are_left_out_and_counted(damaged, tmp_path, capsys):
    words = ["data=nih14", f"data.root={damaged}", f"out={tmp_path}/out"]
    with pytest.raises(InputError, match=r"2 of 120 images cannot be used: .*truncated"):
        prepare(*words)
    out = prepare(*words, "data.on_unreadable=skip")
    assert "left out: 2 images" in capsys.readouterr().out
    about = json.loads((out / "prepared.json").read_text())
    assert (about["images"], about["left_out"]) == (118, 2)
    kept = build.build_studies(config("data=prepared", f"data.root={out}"), split=False)
    words = [*words[:2], "data.on_unreadable=skip"]
    raw = build.build_studies(config(*words), split=False)
    assert kept.table["patient"].tolist() == raw.table["patient"].tolist()


def test_a_label_cannot_have_the_name_of_a_column(tmp_path, copied):
    table = pd.DataFrame({"path": [], "patient": [], "split": [], "view": [], "source": []})
    job = SimpleNamespace(out=tmp_path)
    with pytest.raises(InputError, match="cannot be called 'source'"):
        copying.copy_table.write(job, Collection(table, tmp_path), [], 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to prepare: add data=NAME"),
        (["size=64"], "nothing to prepare"),
        (["weights=[]"], "weights is empty"),
        (["weights=x", "data=nih14", "data.root=a"], "weights= and data= cannot be combined"),
        (["weights=x", "size=64"], "weights= and size= cannot be combined"),
        (["data=nih14"], "data.root is not set"),
        (["data=nih14", "data.root=a", "head.width=3"], "head.width is not a key of this command"),
        (["data=nih14", "data.root=a", "size=8"], "size must be at least 32"),
        (["data=nih14", "data.root=a", "format=gif"], "format must be one of jpeg, png, stored"),
        (["data=nih14", "data.root=a", "audit=yes"], "audit must be one of"),
        (["data=nih14", "data.root=a", "out=a/b"], "lies in data.root"),
        (["data=nih14", "data.root=.", "out=."], "lies in data.root"),
        (["data=nih14", "data.root=a", "out=file"], "file is a file"),
        (["data=nih14", "data.root=a", "data.patients=3"], "exists only with data=phantom"),
    ],
)
def test_bad_input_is_refused(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["prepare.py", *words])
    with pytest.raises(SystemExit) as end:
        entry.command("", "prepare", "fluoroscope.prepare.prepare_jobs:main", CHECK)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


CHECK = "fluoroscope.config.prepare:check_prepare"


def test_defaults_of_the_folder():
    assert str(checked("data=nih14", "data.root=a").out) == "data/nih14-512px"
    assert checked("data=nih14", "data.root=a", "audit=only").out is None
    assert isinstance(checked("data=nih14", "data.root=a", "audit=only", "out=b"), Audit)
    assert checked("weights=resnet18") == Job(["resnet18"], checked("weights=resnet18").out)
    assert str(checked("weights=resnet18").out) == "weights"


def test_another_collection_of_the_same_names_is_not_taken_for_the_first(tmp_path):
    """Same names, sizes and times of change: nothing else would tell them apart."""
    for name, gray in (("a", 60), ("b", 180)):
        for patient in range(4):
            path = tmp_path / name / ("sick" if patient % 2 else "normal") / f"{patient}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.full((50, 50), gray, np.uint8) + np.eye(50, dtype=np.uint8))
            os.utime(path, (1, 1))
    out = tmp_path / "copy"
    prepare("data=folder", f"data.root={tmp_path}/a", f"out={out}")
    with pytest.raises(InputError, match="holds a copy of a collection in another place"):
        prepare("data=folder", f"data.root={tmp_path}/b", f"out={out}")
    pixels = [read_image(path).mean() for path in out.glob("images/*/*.png")]
    assert len(pixels) == 4
    assert max(pixels) < 70


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(nih14, monkeypatch):
    monkeypatch.setattr(collection_audit, "read_collection", lambda data: pytest.fail("read"))
    words = ["data=nih14", f"data.root={nih14}", "out=/proc/none/copy"]
    with pytest.raises(InputError, match=r"^out: cannot write to /proc/none/copy"):
        prepare_jobs.main(checked(*words))
