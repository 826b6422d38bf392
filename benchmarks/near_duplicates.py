"""How often the audit finds an altered copy of a film, and how often it reports a false one.

python -m benchmarks.near_duplicates DIR [EVERY]

DIR holds NIH ChestX-ray14 as downloaded, or a part of it. Every EVERY-th film (default 1) is copied
once with each alteration. A reported pair is false if its films are of different patients.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import cv2
import numpy as np
import pandas as pd

from fluoroscope import sources
from fluoroscope.data.image_stats import (
    PERCEPTUAL_BITS,
    hash_signs,
    measure,
    mirrored,
    thumbnail,
    trim,
)
from fluoroscope.data.near_duplicates import DISTANCE, KINDS, SAME, confirm, propose, similarity
from fluoroscope.data.survey import survey_images, user_cache
from fluoroscope.files.images import read_image

Change = Callable[[np.ndarray], np.ndarray]


def resized(side_px: int) -> Change:
    return lambda film: cv2.resize(film, (side_px, side_px), interpolation=cv2.INTER_AREA)


def compressed(quality: int) -> Change:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]

    def change(film: np.ndarray) -> np.ndarray:
        pixels = cv2.imdecode(cv2.imencode(".jpg", film, options)[1], cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        return pixels

    return change


def scaled(gain: float, offset: float) -> Change:
    return lambda film: np.clip(gain * film + offset, 0, 255).astype(np.uint8)


def curved(gamma: float) -> Change:
    return lambda film: (255 * (film / 255) ** gamma).astype(np.uint8)


def cut(share: float) -> Change:
    def change(film: np.ndarray) -> np.ndarray:
        top, left = (int(share * side) for side in film.shape)
        return film[top : film.shape[0] - top, left : film.shape[1] - left]

    return change


def framed(share: float) -> Change:
    def change(film: np.ndarray) -> np.ndarray:
        top, left = (int(share * side) for side in film.shape)
        return cv2.copyMakeBorder(film, top, top, left, left, cv2.BORDER_CONSTANT, value=0)

    return change


def turned(degrees: float) -> Change:
    def change(film: np.ndarray) -> np.ndarray:
        height, width = film.shape
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        return cv2.warpAffine(film, turn, (width, height))

    return change


def noisy(film: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, film.shape)
    return np.clip(film + noise, 0, 255).astype(np.uint8)


def written_on(film: np.ndarray) -> np.ndarray:
    scale = film.shape[1] / 400
    at = (int(25 * scale), int(40 * scale))
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(film.copy(), "PORTABLE", at, font, scale, 255, max(1, int(2 * scale)))


CHANGES: dict[str, Change] = {
    "resized to 224 px": resized(224),
    "resized to 1024 px": resized(1024),
    "JPEG, quality 30": compressed(30),
    "contrast x 0.8": scaled(0.8, 20),
    "contrast x 1.2, clipped": scaled(1.2, -15),
    "gamma 0.7": curved(0.7),
    "gamma 1.4": curved(1.4),
    "CLAHE": lambda film: cv2.createCLAHE(2, (8, 8)).apply(film),
    "histogram equalised": cv2.equalizeHist,
    "noise, 8 gray levels": noisy,
    "text written on it": written_on,
    "black border of 5 %": framed(0.05),
    "2 % cut off each side": cut(0.02),
    "5 % cut off each side": cut(0.05),
    "turned by 2 degrees": turned(2),
    "turned by 5 degrees": turned(5),
    "negative": lambda film: 255 - film,
    "mirrored": lambda film: np.ascontiguousarray(film[:, ::-1]),
}


def main(root: str, every: int = 1) -> None:
    table = sources.load("nih14", root).table
    survey = survey_images(table["path"].tolist(), cache_dir=user_cache())
    for line in _false_pairs(table, survey):
        print(line)
    negatives = -survey["polarity"]  # exactly the polarity of the negatives
    films_frac, negatives_frac = (survey["polarity"] < 0).mean(), (negatives < 0).mean()
    print(
        f"look inverted: {films_frac:.2%} of {len(table)} films, {negatives_frac:.2%} of their "
        "negatives"
    )
    films = [read_image(path) for path in table["path"][::every]]
    print(_resized_apart(films, table["patient"][::every].to_numpy()))
    for name, change in CHANGES.items():
        found_frac = np.mean([_is_found(film, change(film)) for film in films])
        print(f"{name:26s} {found_frac:6.1%} of {len(films)} found")


def _false_pairs(table: pd.DataFrame, survey: pd.DataFrame) -> Iterator[str]:
    rows = table.index.to_numpy()
    patient = table["patient"]
    pairs = [pair for pair in propose(survey, rows, rows) if pair.row < pair.other]
    wrong = [pair for pair in pairs if patient[pair.row] != patient[pair.other]]
    images = patient.value_counts()
    total = sum(a * b for a, b in combinations(images.tolist(), 2))
    yield f"{total:,} pairs of films of different patients: {len(wrong)} within {DISTANCE} bits"
    same = confirm(table["path"], survey["polarity"], wrong)
    yield f"{len(same)} of them with details that correlate at {SAME} or more"


def _resized_apart(films: Sequence[np.ndarray], patients: np.ndarray) -> str:
    """Distances of perceptual hashes, on which the check for leaked images rests."""
    signs, again = (
        hash_signs(np.stack([measure(film)["perceptual"] for film in group]))
        for group in (films, map(CHANGES["resized to 224 px"], films))
    )
    apart = (PERCEPTUAL_BITS - signs @ again.T) / 2  # [N, N], in bits
    own, others = np.diag(apart), apart[patients[:, None] != patients]
    return (
        f"resized to 224 px: 99 % of {len(films)} within {np.percentile(own, 99):.0f} bits, all "
        f"within {own.max():.0f}; films of other patients differ in {others.min():.0f} or more"
    )


def _is_found(film: np.ndarray, copy: np.ndarray) -> bool:
    measures = [measure(film), measure(copy)]
    signs = hash_signs(np.stack([found["perceptual"] for found in measures]))
    agree = [float(signs[0] @ signs[1]), float(signs[0] @ mirrored(signs[1:])[0])]
    mirror = int(np.argmax(np.abs(agree)))
    if abs(agree[mirror]) < PERCEPTUAL_BITS - 2 * DISTANCE:
        return False
    kind = KINDS[2 * mirror + (agree[mirror] < 0)]
    one, two = (
        trim(thumbnail(pixels), negative=bool(found["polarity"] < 0))
        for pixels, found in zip((film, copy), measures, strict=True)
    )
    return similarity(one, two, kind) >= SAME


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
