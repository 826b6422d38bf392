import cv2
import numpy as np
import pandas as pd
import pytest

from fluoroscope.build import build_studies
from fluoroscope.data import near_duplicates
from fluoroscope.data.lookalikes import PERCEPTUAL
from fluoroscope.data.near_duplicates import DISTANCE, KINDS, propose, quick_check, similarity
from fluoroscope.data.study_table import study_table
from fluoroscope.data.survey import survey_images
from tests.audit.collection import chest
from tests.support.films import config


def flipped(value, bits, rng):
    for bit in rng.choice(256, bits, replace=False):
        value ^= 1 << int(bit)
    return value


def mirror(value):
    """Bits of row u, column v of 16 x 16 waves are number 16 u + v; columns 0, 2, ... are odd."""
    return value ^ sum(1 << (16 * u + v) for u in range(16) for v in range(0, 16, 2))


@pytest.fixture
def survey():
    """40 random images, then 20 that have a few bits other than one of them, as each kind."""
    rng = np.random.default_rng(7)
    values = [int.from_bytes(rng.bytes(32), "little") for _ in range(40)]
    for n in range(20):
        value = flipped(values[n], 3 * n + 5, rng)
        value = value ^ (2**256 - 1) if n % 2 else value
        values.append(mirror(value) if n % 4 > 1 else value)
    data = np.array([np.frombuffer(v.to_bytes(32, "little"), np.uint64) for v in values])
    return values, pd.DataFrame(data, columns=PERCEPTUAL).assign(exact=range(60))


def brute_force(values, rows, others):
    """Every pair by counting bits of Python's integers."""
    for row in rows:
        for other in others:
            turned = {
                KINDS[0]: values[other],
                KINDS[1]: values[other] ^ (2**256 - 1),
                KINDS[2]: mirror(values[other]),
                KINDS[3]: mirror(values[other]) ^ (2**256 - 1),
            }
            for kind, value in turned.items():
                distance = (values[row] ^ value).bit_count()
                if distance <= DISTANCE:
                    yield row, other, kind, distance


def test_propose_finds_every_near_pair(survey, monkeypatch):
    values, frame = survey
    monkeypatch.setattr(near_duplicates, "ROWS", 7)
    monkeypatch.setattr(near_duplicates, "COLUMNS", 11)
    rows, others = np.arange(40), np.arange(40, 60)
    pairs = propose(frame, rows, others)
    assert set(map(tuple, pairs)) == set(brute_force(values, rows, others))
    assert {pair.kind for pair in pairs} == set(KINDS)
    own = {pair.row for pair in pairs if pair.row == pair.other - 40}
    assert own == set(range(19))  # 3 * 19 + 5 bits are too many


def test_propose_keeps_the_nearest_where_all_look_alike(survey, monkeypatch):
    values, frame = survey
    monkeypatch.setattr(near_duplicates, "ROWS", 7)
    monkeypatch.setattr(near_duplicates, "MOST_PAIRS", 5)
    rows, others = np.arange(40), np.arange(40, 60)
    nearest = sorted(brute_force(values, rows, others), key=lambda pair: pair[3])[:5]
    assert set(map(tuple, propose(frame, rows, others))) == set(nearest)


def test_propose_leaves_copies_to_others(survey):
    frame = survey[1].copy()
    frame.loc[40, "exact"] = 0
    pairs = propose(frame, np.arange(40), np.arange(40, 60))
    assert 40 not in {pair.other for pair in pairs}


def test_similarity():
    film = np.repeat(np.repeat(chest(3), 2, 0), 2, 1)[32:288, 32:288]
    other = np.repeat(np.repeat(chest(4), 2, 0), 2, 1)[32:288, 32:288]
    moved = np.roll(film, 5, axis=1)
    assert similarity(film, film) == pytest.approx(1)
    assert similarity(film, 255 - film) < -0.99
    assert similarity(film, 255 - film, "negative") > 0.99
    assert similarity(film, film[:, ::-1], "mirror image") > 0.99
    assert similarity(film, 255 - film[:, ::-1], "mirrored negative") > 0.99
    assert similarity(film, moved) > 0.9
    assert similarity(film, other) < 0.6
    assert similarity(film, np.full_like(film, 9)) == pytest.approx(0, abs=0.1)


ALTERED = {
    "resized": lambda film: cv2.resize(film, (97, 97), interpolation=cv2.INTER_AREA),
    "recompressed": lambda film: cv2.imdecode(cv2.imencode(".jpg", film, [1, 40])[1], 0),
    "windowed": lambda film: film // 2 + 50,
    "framed": lambda film: np.pad(film, 8),
    "negative": lambda film: 255 - film,
}


@pytest.fixture(scope="module")
def split_films(tmp_path_factory):
    """30 different films in three splits, and their survey."""
    root = tmp_path_factory.mktemp("split")
    paths = [root / f"{n}.png" for n in range(30)]
    for n, path in enumerate(paths):
        cv2.imwrite(str(path), chest(n))
    labels = pd.DataFrame({"Mass": [0.0, 1.0] * 15})
    table = study_table(paths, labels, splits=["train"] * 16 + ["val"] * 7 + ["test"] * 7)
    return table, survey_images(table["path"].tolist())


def with_film(split_films, root, row, pixels):
    """The films with other pixels in a row."""
    table, survey = split_films[0].copy(), split_films[1].copy()
    cv2.imwrite(str(root / "copy.png"), pixels)
    table.loc[row, "path"] = str(root / "copy.png")
    survey.loc[row] = survey_images([root / "copy.png"]).iloc[0]
    return table, survey


@pytest.mark.parametrize("change", ALTERED)
def test_a_run_tells_of_an_altered_copy_in_another_split(split_films, tmp_path, change):
    assert quick_check(*split_films) == ()
    (decision,) = quick_check(*with_film(split_films, tmp_path, 3, ALTERED[change](chest(25))))
    assert decision.policy == (
        "pairs of images in two splits that look like the same film: kept, "
        "python scripts/prepare.py audit=only lists them"
    )
    assert decision.counts == {"pairs": 1}


def test_only_the_nearest_pairs_are_decoded(split_films, tmp_path, monkeypatch):
    monkeypatch.setattr(near_duplicates, "QUICK_PAIRS", 1)
    table, survey = with_film(split_films, tmp_path, 3, ALTERED["resized"](chest(25)))
    (tmp_path / "more").mkdir()
    films = with_film((table, survey), tmp_path / "more", 4, ALTERED["windowed"](chest(26)))
    (decision,) = quick_check(*films)
    assert "look like the same film, among the 1 nearest pairs: kept" in decision.policy
    assert decision.counts == {"pairs": 1}


def test_copies_within_a_split_are_no_leak(split_films, tmp_path):
    assert quick_check(*with_film(split_films, tmp_path, 3, ALTERED["resized"](chest(4)))) == ()


def test_a_large_collection_is_compared_in_part(split_films, monkeypatch):
    """All 16 of train with 5 of the other 14: the work has a bound."""
    monkeypatch.setattr(near_duplicates, "QUICK_DISTANCES", 80)
    compared = []
    monkeypatch.setattr(near_duplicates, "across_splits", lambda *a: compared.append(a) or ([1], 1))
    (decision,) = quick_check(*split_films)
    (table, survey, most) = compared[0]
    assert (len(table), most) == (21, near_duplicates.QUICK_PAIRS)
    assert table["split"].value_counts()["train"] == 16
    exact = dict(zip(split_films[0]["path"], split_films[1]["exact"], strict=True))
    assert survey["exact"].tolist() == [exact[path] for path in table["path"]]
    assert "among 21 images compared" in decision.policy


def test_drawn_films_are_no_copies(tmp_path):
    words = ["data=phantom", f"data.root={tmp_path}/films", "data.patients=30"]
    studies = build_studies(config(*words, "data.film_px=64", "data.images_per_patient=1"))
    assert quick_check(studies.table, studies.survey)  # one skeleton looks like another
    assert studies.decisions == ()
