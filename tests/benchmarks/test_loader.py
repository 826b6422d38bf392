"""The arms read the same images, and the numbers are what they are called."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks import readers
from benchmarks.loader import (
    Sample,
    compare,
    conclude,
    judge,
    make_loaders,
    measure,
    training_files,
)
from benchmarks.readers import Draws, one_core, prepare
from fluoroscope import build
from fluoroscope.config.schema import plain
from fluoroscope.data.transforms import Augmentation
from fluoroscope.files.images import fit_square, read_image
from fluoroscope.prepare import copying
from fluoroscope.run import run_folder
from tests.benchmarks.jobs import job
from tests.prepare.test_copying import checked

HERE = ["raw", "raw_plain", "raw_worker", "png", "jpeg", "stored", "png_worker", "run", "run_png"]


def small(films, *overrides):
    keys = ["data=folder", f"data.root={films}", "data.image_px=37", "benchmark.images=11"]
    return job(*keys, *overrides)


def test_the_copies_are_those_of_the_prepare_command(films, tmp_path):
    raw = training_files(small(films))
    words = ["data=folder", f"data.root={films}", "size=37", "audit=false"]
    kinds = {"png": ".png", "stored": ".png", "jpeg": ".jpg"}
    for kind, suffix in kinds.items():
        made = prepare(raw, tmp_path / kind, kind)
        copying.main(checked(*words, f"format={kind}", f"out={tmp_path}/whole-{kind}"))
        known = {path.read_bytes() for path in (tmp_path / f"whole-{kind}/images").glob("*/*")}
        assert len(made.paths) == len(set(made.paths)) == len(raw.paths) == 11
        assert {Path(path).read_bytes() for path in made.paths} <= known
        assert all(path.endswith(suffix) for path in made.paths)
        for original, copy in zip(raw.paths, made.paths, strict=True):
            seen = fit_square(read_image(original), 37)
            difference = np.abs(read_image(copy).astype(int) - seen).mean()
            assert difference < 3 if kind == "jpeg" else difference == 0


def test_only_training_images_are_read(films):
    cut = small(films, "benchmark.images=1000")
    table = build.build_studies(cut.train).table
    paths = training_files(cut).paths
    assert sorted(paths) == sorted(table.loc[table["split"] == "train", "path"])
    assert training_files(cut).paths == paths != sorted(paths)


def test_each_pass_draws_all_files_as_another_epoch():
    draws = Draws(size=4, images=10)
    first, second = list(draws), list(draws)
    assert len(draws) == len(first) == 10
    assert [position for position, _, _ in first] != [position for position, _, _ in second]
    for epoch, found in enumerate((first, second), start=1):
        assert {e for _, e, _ in found} == {epoch}
        assert sorted(p for p, _, repeat in found if repeat == 0) == [0, 1, 2, 3]
        assert [repeat for _, _, repeat in found] == [0] * 4 + [1] * 4 + [2] * 2


def test_every_arm_reads_the_same_images(films, tmp_path):
    pytest.importorskip("torchxrayvision")
    cut = small(films, "data.augment=[{name: HorizontalFlip, p: 1.0}]", "data.num_workers=2")
    raw = training_files(cut)
    found = {}
    for arm, loader in make_loaders(cut, raw, tmp_path).items():
        batches = list(loader)
        assert [len(b["image"] if isinstance(b, dict) else b) for b in batches] == [5, 5, 1]
        found[arm] = torch.cat([b["image"] if isinstance(b, dict) else b for b in batches])
        assert loader.num_workers == {"run": 2, "run_png": 2}.get(arm, int("worker" in arm))
    plain = found.pop("raw_plain")
    order = [position for position, _, _ in Draws(11, 11)]
    expected = [fit_square(read_image(raw.paths[position]), 37) for position in order]
    np.testing.assert_array_equal(plain[:, 0].numpy(), expected)
    other = (found.pop("torchxrayvision") / 1024 + 1) / 2 * 255
    assert (other - plain).abs().mean() < 3
    flipped, jpeg = plain.flip(-1), found.pop("jpeg")
    assert list(found) == [arm for arm in HERE if arm not in ("raw_plain", "jpeg")]
    assert all(torch.equal(images, flipped) for images in found.values())
    assert (jpeg.float() - flipped).abs().mean() < 3


def test_the_augmentation_is_that_of_a_run(films, tmp_path):
    cut = small(films)
    raw = training_files(cut)
    image = next(iter(make_loaders(cut, raw, tmp_path)["raw"]))["image"][2, 0].numpy()
    position = list(Draws(11, 11))[2][0]
    augmentation = Augmentation(plain(cut.train)["data"]["augment"], 37)
    seen = fit_square(read_image(raw.paths[position]), 37)
    np.testing.assert_array_equal(image, augmentation(seen, (1, 1, position, 0)))


def test_torchxrayvision_is_left_out_where_it_is_not_installed(
    films, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    cut = small(films)
    assert list(make_loaders(cut, training_files(cut), tmp_path)) == HERE
    assert capsys.readouterr().out == "torchxrayvision is not installed: left out\n"


def test_torchxrayvision_is_left_out_where_it_cannot_read_the_files(films, tmp_path, capsys):
    pytest.importorskip("torchxrayvision")
    cut = small(films)
    raw = training_files(cut)
    deep = [str(tmp_path / f"{i}.png") for i in range(len(raw.paths))]
    for i, path in enumerate(deep):
        assert cv2.imwrite(
            path, np.full((40, 40), 900 + i, np.uint16) + np.eye(40, dtype=np.uint16)
        )
    assert list(make_loaders(cut, raw._replace(paths=deep), tmp_path)) == HERE
    line = "torchxrayvision reads no DICOM and no more than 8 bits: left out\n"
    assert capsys.readouterr().out == line


def test_the_other_cores_are_restored_after_the_block():
    before = os.sched_getaffinity(0), torch.get_num_threads(), cv2.getNumThreads()
    within = []
    with suppress(KeyError), one_core():
        within += [os.sched_getaffinity(0), torch.get_num_threads()]
        raise KeyError
    assert within == [{max(before[0])}, 1]
    assert (os.sched_getaffinity(0), torch.get_num_threads(), cv2.getNumThreads()) == before


def test_headroom_is_over_the_step_of_the_same_round():
    speeds, steps = np.array([90.0, 40.0, 300.0]), np.array([30.0, 10.0, 20.0])
    samples = {
        "run": [Sample(s, None) for s in speeds],
        "png": [Sample(s, s / 2) for s in speeds],
        "step": [Sample(s, None) for s in steps],
    }
    low, median, high = np.quantile(speeds / steps, [0.25, 0.5, 0.75])
    numbers = compare("run", samples)
    assert numbers["headroom"] == {"median": median, "low": low, "high": high}
    assert numbers["images_s"]["median"] == 90
    assert numbers["images_cpu_s"] is None
    assert compare("png", samples)["images_cpu_s"]["median"] == 45


def test_the_targets_are_of_the_sizes_they_were_set_for():
    numbers = {
        arm: {"images_s": {"median": speed}, "all_images_s": rounds}
        for arm, speed, rounds in [
            ("png", 650.0, []),
            ("raw", 100.0, [100.0, 60.0]),
            ("torchxrayvision", 50.0, [50.0, 60.0]),
        ]
    }
    facts = {"image_px": 380, "raw_px": 1024}
    found = [(t["value"], t["met"]) for t in judge(numbers, facts)]
    assert found == [(650, False), (100, True), (1.5, True)]
    assert len(judge(numbers, facts | {"raw_px": 320})) == 2
    assert len(judge(numbers, facts | {"image_px": 224})) == 1
    del numbers["torchxrayvision"]
    assert judge(numbers, facts | {"image_px": 224}) == []


def test_a_measurement_from_start_to_table(films, tmp_path, capsys):
    cut = small(films, f"out={tmp_path}/r.json", "data.num_workers=1")
    conclude(cut, measure(cut))
    kept = run_folder.read_json(tmp_path / "r.json")
    assert [arm for arm in kept["arms"] if arm != "torchxrayvision"] == [*HERE, "step"]
    assert (kept["raw_px"], kept["files"], kept["workers"], kept["images"]) == (48, 11, 1, 11)
    assert kept["arms"]["step"]["headroom"] == {"median": 1, "low": 1, "high": 1}
    assert all(len(n["all_images_s"]) == 2 for n in kept["arms"].values())
    assert json.dumps(kept).count(str(films)) == 0  # files name patients
    out = capsys.readouterr().out
    for arm, numbers in kept["arms"].items():
        speed = numbers["images_s"]["median"]
        assert re.search(rf"^ *{arm} +{speed:.0f} \(", out, re.MULTILINE), out
