"""`scripts/predict.py`: one row per image, whatever the files are and whenever it is stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

import fluoroscope
from fluoroscope.config import CONF
from fluoroscope.config.predict import check_predict
from fluoroscope.errors import InputError
from fluoroscope.prediction import predict
from tests.support import commands

NAME = "Meier^Anna"


def call(*words):
    """The command in this process; its exit code."""
    keys = ["data.num_workers=0", "trainer.accelerator=cpu", *words]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = check_predict(compose("predict", keys))
    try:
        predict.main(cfg)
    except SystemExit as end:
        return end.code
    return 0


def words_of(run, images, out, *more):
    return [f"checkpoint={run}", f"images={images}", f"out={out}", *more]


@pytest.fixture(scope="module")
def folder(films, tmp_path_factory):
    """21 films and four files that are broken in different ways, all named after a patient."""
    place = tmp_path_factory.mktemp("folder")
    for number, film in enumerate(sorted(films.rglob("*.png"))[:21]):
        (place / f"{NAME}-{number:02}.png").write_bytes(film.read_bytes())
    (place / f"{NAME}-04-empty.png").write_bytes(b"")
    (place / f"{NAME}-07-half.png").write_bytes(film.read_bytes()[:99])
    (place / f"{NAME}-08.dcm").write_bytes(b"\0" * 128 + b"DICM" + NAME.encode())
    (place / f"{NAME}-09.npy").write_bytes(b"\x93NUMPY" + NAME.encode())
    (place / "readme.txt").write_text("text")
    return place


@pytest.fixture(scope="module")
def whole(ready, folder, tmp_path_factory):
    """The predictions of the folder in one go."""
    out = tmp_path_factory.mktemp("whole") / "p.csv"
    assert call(*words_of(ready, folder, out, "data.batch_size=8")) == 0
    return out


def test_every_image_has_a_row_with_the_predictions_of_python(whole, ready, folder):
    table = pd.read_csv(whole, keep_default_na=False)
    assert list(table) == ["image", "BLOB_probability", "BLOB_decision", "flags", "error"]
    assert table["image"].tolist() == sorted(path.name for path in folder.glob(f"{NAME}*"))
    predictor = fluoroscope.load(ready)
    found = predictor.predict([folder / name for name in table["image"]])
    for cells, one in zip(table.itertuples(index=False), found, strict=True):
        assert cells.flags == ";".join(one.flags)
        assert cells.error == one.error
        assert bool(cells.error) == (cells.BLOB_probability == "")
        if not one.error:
            assert float(cells.BLOB_probability) == pytest.approx(one.probability["BLOB"], abs=1e-6)
            assert cells.BLOB_decision == str(int(one.decision["BLOB"]))
    assert (table["error"] != "").sum() == 4


def test_broken_files_are_counted_and_fail_only_a_strict_command(ready, folder, tmp_path, capfd):
    assert call(*words_of(ready, folder, tmp_path / "p.csv", "strict=true")) == 1
    out = capfd.readouterr().out
    assert "25 images: 4 cannot be read" in out
    assert "left out 1 other file: txt 1" in out
    assert (tmp_path / "p.csv").is_file()
    (folder_of_films := tmp_path / "films").mkdir()
    film = next(folder.glob("*-00.png"))
    (folder_of_films / "a.png").write_bytes(film.read_bytes())
    assert call(*words_of(ready, folder_of_films, tmp_path / "q.csv", "strict=true")) == 0


def test_nothing_printed_names_a_film(ready, folder, tmp_path, capfd):
    call(*words_of(ready, folder, tmp_path / "p.csv"))
    said = capfd.readouterr()
    assert NAME not in said.out + said.err
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert not table["error"].str.contains(NAME, regex=False).any()


def test_parquet_holds_the_same(ready, folder, whole, tmp_path):
    assert call(*words_of(ready, folder, tmp_path / "p.parquet", "data.batch_size=8")) == 0
    parquet, table = pd.read_parquet(tmp_path / "p.parquet"), pd.read_csv(whole)
    assert list(parquet) == list(table)
    assert parquet["image"].tolist() == table["image"].tolist()
    for name in ("BLOB_probability", "BLOB_decision"):
        assert parquet[name].astype(float).tolist() == pytest.approx(
            table[name].tolist(), nan_ok=True, abs=1e-12
        )
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_rows_of_a_table_keep_their_order_and_number(ready, folder, whole, tmp_path):
    names = pd.read_csv(whole)["image"].tolist()[::-1]
    pd.DataFrame({"file": [*names, "gone.png", names[0]]}).to_csv(folder / "list.csv")
    try:
        words = words_of(ready, folder / "list.csv", tmp_path / "p.csv", "path_column=file")
        assert call(*words) == 0
    finally:
        (folder / "list.csv").unlink()
    found = pd.read_csv(tmp_path / "p.csv")
    assert found["image"].tolist() == list(range(len(names) + 2))
    expected = pd.read_csv(whole)["BLOB_probability"][::-1].tolist()
    ours = found["BLOB_probability"].tolist()
    assert ours[:-2] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert found["error"].iloc[-2] == "no such file or directory"


def test_names_of_any_kind_are_rows(ready, folder, tmp_path):
    film = next(folder.glob("*-00.png")).read_bytes()
    names = ["=1+1.png", 'a"b.png', "c,d.png", "e\nf.png", "ü.png", b"g\xff.png", "h"]
    (tmp_path / "in").mkdir()
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path / "in"), os.fsencode(name)), "wb") as file:
            file.write(film)
    assert call(*words_of(ready, tmp_path / "in", tmp_path / "p.csv")) == 0
    table = pd.read_csv(tmp_path / "p.csv")
    assert len(table) == len(names)
    assert set(table["image"]) == {
        *("'=1+1.png", 'a"b.png', "c,d.png", "e\nf.png", "ü.png", "g\ufffd.png", "h")
    }
    assert table["error"].isna().all()


class InterruptError(Exception):
    """The third batch is not predicted."""


def test_an_interrupted_job_continues_to_the_same_file(ready, folder, whole, tmp_path, monkeypatch):
    words = words_of(ready, folder, tmp_path / "p.csv", "data.batch_size=8")
    calls, own = [], predict.Predictor.predict_films

    def third(self, films):
        calls.append(len(films.errors))
        if len(calls) == 3:
            raise InterruptError
        return own(self, films)

    monkeypatch.setattr(predict.Predictor, "predict_films", third)
    with pytest.raises(InterruptError):
        call(*words)
    assert not (tmp_path / "p.csv").exists()
    assert call(*words) == 0
    assert calls == [8, 8, 8, 8, 1]  # of 25, the first 16 once
    assert (tmp_path / "p.csv").read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_rows_of_a_film_that_has_changed_are_not_continued(ready, films, tmp_path, monkeypatch):
    place, out = tmp_path / "films", tmp_path / "p.csv"
    place.mkdir()
    first, second = sorted(films.rglob("*.png"))[:2]
    (place / "a.png").write_bytes(first.read_bytes())
    words = words_of(ready, place, out, "data.batch_size=1")
    own = predict.Journal.finish
    monkeypatch.setattr(
        predict.Journal, "finish", lambda self: (_ for _ in ()).throw(InterruptError)
    )
    with pytest.raises(InterruptError):
        call(*words)
    monkeypatch.setattr(predict.Journal, "finish", own)
    (place / "a.png").write_bytes(second.read_bytes())
    assert call(*words) == 0
    expected = fluoroscope.load(ready).predict(second).probability["BLOB"]
    assert pd.read_csv(out)["BLOB_probability"].tolist() == pytest.approx([expected], abs=1e-6)


def test_rows_of_another_point_are_not_continued(ready, folder, tmp_path, monkeypatch):
    words = words_of(ready, folder, tmp_path / "p.csv", "data.batch_size=8")
    own = predict.Journal.finish
    monkeypatch.setattr(
        predict.Journal, "finish", lambda self: (_ for _ in ()).throw(InterruptError)
    )
    with pytest.raises(InterruptError):
        call(*words, "point=specificity_95")
    monkeypatch.setattr(predict.Journal, "finish", own)
    assert call(*words, "point=sensitivity_95") == 0
    table = pd.read_csv(tmp_path / "p.csv")
    threshold = fluoroscope.load(ready, "sensitivity_95").thresholds["BLOB"]
    known = table[table["error"].isna()]
    decided = (known["BLOB_probability"] >= threshold).astype(int)
    assert (known["BLOB_decision"] == decided).all()


def test_a_run_that_was_not_evaluated_says_so(trained_run, folder, tmp_path, capfd):
    assert call(*words_of(trained_run, folder, tmp_path / "p.csv")) == 0
    assert "input not compared with the training's" in capfd.readouterr().out
    alone = tmp_path / "model.ckpt"
    alone.write_bytes((trained_run / "checkpoints/best.ckpt").read_bytes())
    assert call(*words_of(alone, folder, tmp_path / "q.csv")) == 0
    out = capfd.readouterr().out
    assert "uncalibrated" in out
    fitted, raw = (pd.read_csv(tmp_path / f"{n}.csv", keep_default_na=False) for n in "pq")
    assert not fitted["flags"].str.contains("uncalibrated").any()
    assert raw["flags"].str.endswith("uncalibrated").tolist() == (raw["error"] == "").tolist()
    flagged = (raw["flags"].str.count(";") > 0).sum()  # by something else
    assert f"{flagged} with flags" in out


HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, 2); print(flush=True); input()"
)


def test_a_second_process_does_not_write_the_same_file(ready, folder, tmp_path):
    out, lock = tmp_path / "p.csv", tmp_path / ".p.csv.lock"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], text=True, **pipes) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="another process writes"):
            call(*words_of(ready, folder, out))
        other.communicate("\n")
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": "no"}, "images: there is no file or folder no"),
        ({"images": "/dev/zero"}, "images: /dev/zero is a pipe or a device; give a file"),
        ({"out": "p.txt"}, "out must end in .csv or .parquet; got p.txt"),
        ({"out": "no/p.csv"}, "out: there is no folder"),
        ({"out": "old.csv"}, "out: old.csv exists; remove it"),
        ({"checkpoint": "empty"}, "empty is not the folder of a trained run"),
        ({"checkpoint": "old.csv"}, "old.csv is not a checkpoint"),
        ({"images": "empty"}, "images: empty holds no image"),
        ({"images": "old.csv", "path_column": "p"}, "path_column needs the column 'p'"),
        ({"point": "recall_90"}, "point must be one of sensitivity_90"),
        ({"data.batch_size": "0"}, "data.batch_size must be"),
        ({"trainer.accelerator": "tpu"}, "trainer.accelerator must be one of auto, cpu, gpu"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    ready, folder, tmp_path, monkeypatch, change, told
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.csv").write_text("a,b\n1,2\n")
    before = sorted(tmp_path.rglob("*"))
    keys = {"checkpoint": ready, "images": folder, "out": "p.csv"} | change
    with pytest.raises(InputError) as error:
        call(*(f"{key}={value}" for key, value in keys.items()))
    assert told in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("key", ["checkpoint", "images", "out"])
def test_a_key_without_value_is_named(key):
    with pytest.raises(InputError, match=f"{key} is not set; add {key}="):
        call(*(f"{other}=x" for other in ("checkpoint", "images", "out") if other != key))


@pytest.mark.whole
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_command_continues(ready, folder, whole, tmp_path, signum):
    films = tmp_path / "films"
    films.mkdir()
    film = cv2.imread(str(next(folder.glob("*-00.png"))), 0)
    for number in range(300):
        np.save(films / f"{number:03}.npy", np.roll(film, number, 1))
    keys = ["data.batch_size=2", "data.num_workers=1", "trainer.accelerator=cpu"]
    words = words_of(ready, films, tmp_path / "p.csv", *keys)
    running = commands.start(words, tmp_path, script="predict")
    rows = tmp_path / ".p.csv.rows"
    commands.wait_for(rows, running)
    while rows.exists() and rows.read_bytes().count(b"\n") < 20:
        pass
    running.send_signal(signum)
    code, _, err = commands.end(running)
    assert code == (-signal.SIGKILL if signum == signal.SIGKILL else 128 + signum), err
    if signum == signal.SIGTERM:
        assert "rows kept; repeat the command to continue" in err
        assert "Traceback" not in err
    out, _ = commands.run(words, tmp_path, script="predict")
    assert "continuing after" in out
    once = words_of(ready, films, tmp_path / "q.csv", *keys)
    commands.run(once, tmp_path, script="predict")
    assert Path(tmp_path / "p.csv").read_bytes() == (tmp_path / "q.csv").read_bytes()
