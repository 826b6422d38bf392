"""The numbers of `evaluation.json` as people read them, for the page and the model card."""

import math
from collections.abc import Mapping
from typing import Any

from fluoroscope.errors import plural
from fluoroscope.reporting.columns import number

Values = Mapping[str, Any]  # a part of `evaluation.json`
INFINITE = "∞"


def known(value: float | None) -> float:
    """The number, or NaN for null."""
    return math.nan if value is None else float(value)


def estimate(values: Values | None, form: str = ".3f") -> str:
    """A number with its interval; `n/a` if it is not known.

    An infinite value or bound is null in the file, and then only the lower bound is a number.

    >>> estimate({"value": 0.9, "low": 0.85, "high": 0.9321})
    '0.900 (0.850 to 0.932)'
    >>> estimate({"value": None, "low": 4.0, "high": None}, ".1f")
    '∞ (4.0 to ∞)'
    """
    value, low, high = (known((values or {}).get(key)) for key in ("value", "low", "high"))
    if math.isnan(low):
        return number(value, form)
    shown = [INFINITE if math.isnan(v) else number(v, form) for v in (value, high)]
    return f"{shown[0]} ({number(low, form)} to {shown[1]})"


def point_name(name: str) -> str:
    """An operating point in words.

    >>> point_name("sensitivity_90"), point_name("youden")
    ('sensitivity ≥ 0.90', 'Youden')
    """
    kind, _, percent = name.partition("_")
    return f"{kind} ≥ 0.{percent}" if percent else name.capitalize()


def images_and_patients(values: Values) -> str:
    """`112 x-rays of 72 patients`, as far as patients are known."""
    images = plural(values["images"], "x-ray")
    patients, of = values["patients"], values["patients_known"]
    if patients is None or of == "none":
        return f"{images} of unknown patients"
    return f"{images} of {'at most ' * (of == 'some')}{plural(patients, 'patient')}"


def not_judged(labels: Values) -> list[str]:
    """Each label that is not judged and why, without full stops.

    >>> not_judged({"Mass": {"why_not": "not judged: 3 positive images"}, "Edema": {"why_not": ""}})
    ['Mass: not judged: 3 positive images']
    """
    return [f"{name}: {own['why_not']}" for name, own in labels.items() if own["why_not"]]


def is_known(values: Values | None) -> bool:
    """Whether an estimate has a value."""
    return values is not None and values["value"] is not None


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."
