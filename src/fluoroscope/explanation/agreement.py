"""The pointing score and the energy of all films together, and what they say."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fluoroscope.explanation.film_explained import Explained
from fluoroscope.explanation.pointing import (
    Mean,
    energy,
    mean_difference,
    mean_score,
    pointing,
    usual_places,
)
from fluoroscope.statistics import nanmean

SCORES = ("pointing", "energy")
INEXACT = 0.1  # share of the logit that integrated gradients may miss
PRIORS = ("centre", "usual_place")
# What the scores of a map are compared with, in the words of the console.
OTHERS = {"chance": "chance", "centre": "the centre", "usual_place": "the usual place"}
TITLES = {"gradcam": "Grad-CAM", "integrated_gradients": "integrated gradients"}


def score_usual_place(explained: Sequence[Explained]) -> None:
    """Add to the numbers of each film the scores of the place where others have the finding.

    The map is the mean region of all other patients; NaN if there are none.
    """
    for label in dict.fromkeys(each.label for each in explained):
        of_label = [each for each in explained if each.label == label and each.region is not None]
        regions = [each.region for each in of_label if each.region is not None]
        places = usual_places(regions, [each.film.patient for each in of_label])
        for each, region, heat in zip(of_label, regions, places, strict=True):
            for name, score in (("pointing", pointing), ("energy", energy)):
                value = math.nan if heat is None else score(heat, region, each.area)
                each.numbers[f"{name}/usual_place"] = value


def summarise(table: pd.DataFrame, methods: Sequence[str]) -> dict[str, Any]:
    """Agreement with the boxes by label: means over films with intervals over patients.

    Args:
        table: columns `patient` and `known` (see `Film`), and the numbers of `Explained`.
        methods: those that were used.
    """
    return {
        str(label): _of_label(rows, methods) for label, rows in table.groupby("label", sort=False)
    }


def _of_label(rows: pd.DataFrame, methods: Sequence[str]) -> dict[str, Any]:
    patients = list(rows["patient"])
    random = [f"random_{method}" for method in methods]
    maps: dict[str, Any] = {name: {} for name in (*methods, *random, *PRIORS)}
    for name, scores in maps.items():
        for score in SCORES:
            values = rows[f"{score}/{name}"]
            scores[score] = _known(mean_score, values, patients)
            if name not in methods:
                continue
            others = {"chance": rows["chance"]}
            others |= {o: rows[f"{score}/{o}"] for o in (*PRIORS, f"random_{name}")}
            for other, against in others.items():
                key = "random" if other.startswith("random_") else other
                hits = score == "pointing"
                scores[f"{score}_above_{key}"] = mean_difference(values, against, patients, hits)
                if against.isna().any():
                    scores[f"{score}_above_{key}"] = Mean(math.nan, math.nan, math.nan)
    return {
        "films": len(rows),
        "patients": len({*patients}),
        "patients_known": bool(rows["known"].all()),
        "chance": mean_score(rows["chance"], patients),
        "maps": maps,
    }


def _known(mean: Any, values: pd.Series, patients: Sequence[str]) -> Mean:
    return Mean(math.nan, math.nan, math.nan) if values.isna().any() else mean(values, patients)


def as_json(value: Any) -> Any:
    """The summary with each mean as `{value, low, high}`."""
    if isinstance(value, Mean):
        return value._asdict()
    if isinstance(value, Mapping):
        return {key: as_json(part) for key, part in value.items()}
    return value


def sentences(summary: Mapping[str, Any], table: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """The findings in words, for the console and the JSON: a name, a number, its interval."""
    said = [_on_head(table)]
    said += [_on_path(table)] if "path_error" in table else []
    for label, found in summary.items():
        said.append(
            f"{label}: {_films(found)}; a random place is in a box in {_percent(found['chance'])}"
        )
        said += [_on_method(found["maps"], method) for method in methods]
        said.append(_on_priors(found["maps"]))
    return [*said, *(_on_random(summary, table, method) for method in methods)]


def _films(found: Mapping[str, Any]) -> str:
    if not found["patients_known"]:
        return f"{found['films']:,} films with boxes, each counted as a separate patient"
    return f"{found['films']:,} films of {found['patients']:,} patients with boxes"


def _percent(mean: Mean) -> str:
    if math.isnan(mean.value):
        return "not known"
    whole = f"{mean.value:.0%}"
    return whole if math.isnan(mean.low) else f"{whole} [{mean.low:.0%}, {mean.high:.0%}]"


def _on_method(maps: Mapping[str, Any], method: str) -> str:
    found = maps[method]
    pointing_score, energy_score = (f"{_percent(found[s])}, {_compared(found, s)}" for s in SCORES)
    return f"{TITLES[method]}: pointing score {pointing_score}; energy in boxes {energy_score}"


def _compared(found: Mapping[str, Mean], score: str) -> str:
    words: dict[str, list[str]] = {}
    for other, named in OTHERS.items():
        words.setdefault(compare(found[f"{score}_above_{other}"]), []).append(named)
    return ", ".join(f"{how} {' and '.join(names)}" for how, names in words.items())


def compare(difference: Mean) -> str:
    """A paired difference in words.

    >>> compare(Mean(0.2, 0.1, 0.3)), compare(Mean(0.2, -0.1, 0.5))
    ('better than', 'not shown to differ from')
    """
    if difference.low > 0:
        return "better than"
    return "worse than" if difference.high < 0 else "not shown to differ from"


def _on_priors(maps: Mapping[str, Any]) -> str:
    centre, usual = (_percent(maps[name]["pointing"]) for name in PRIORS)
    return (
        f"without a look at the film: pointing score {centre} for the centre of the film, {usual} "
        "for the usual place of the finding in other patients"
    )


def _on_path(table: pd.DataFrame) -> str:
    missing, whole = (table[name].abs().median() for name in ("path_error", "path_logit"))
    text = f"integrated gradients: {missing:.2g} of {whole:.2g} logits are missing, median of films"
    return text if missing <= INEXACT * whole else f"{text}; a higher steps= makes them more exact"


def _on_random(summary: Mapping[str, Any], table: pd.DataFrame, method: str) -> str:
    """The sanity check: with random weights a map must say nothing."""
    alike = nanmean(table[f"random_correlation/{method}"])
    text = f"sanity check, {TITLES[method]} of random weights: "
    text += "constant maps" if math.isnan(alike) else f"rank correlation {alike:.2f} with the maps"
    for label, found in summary.items():
        random, above = f"random_{method}", found["maps"][method]["pointing_above_random"]
        text += f"; {label}: pointing score {_percent(found['maps'][random]['pointing'])}"
        if not above.low > 0:
            text += (
                "; the trained network is not shown to point better, so these maps are no evidence "
                "of what it learnt"
            )
    return text


def _on_head(table: pd.DataFrame) -> str:
    films = table.drop_duplicates("film")
    open_units, units = films["open_units"], int(films["units"].iloc[0])
    dark, nearest = int((open_units == 0).sum()), films["blackout_shift_sd"].min()
    text = f"head: {open_units.median():.0f} of {units} units open"
    if len(films) > 1:
        text += f" on the median film, {open_units.min()} on the film with the fewest"
    text += f"; {dark} of {len(films)} films blacked out"
    if math.isnan(nearest):
        return f"{text}; no fall of the pre-activations closes all units"
    return f"{text}; a fall of all pre-activations by {nearest:.1f} SD blacks out the nearest one"
