"""What happened to the head, in two sentences for a person."""

import math
from typing import Any


def story(result: dict[str, Any]) -> list[str]:
    """One sentence on the units, one on what they let through; from what `result.json` holds."""
    return [_units(result), _gradient(result)]


def _units(result: dict[str, Any]) -> str:
    units, kind = result["units"], f"{result['width']} {result['activation']} units"
    dead = units["val/dead_frac"]
    if math.isnan(dead):
        return "The units were not measured."
    if dead > 0:
        count = round(dead * result["width"])
        share = f"{dead:.1%}{_by_geometry(result)}"
        return f"Of the head's {kind} {count} ended dead ({share}): {result['postmortem']}."
    line = f"None of the head's {kind} ended dead"
    if units["val/dead_max"] > 0:
        line += f" (at most {units['val/dead_max']:.1%} were, after some epoch)"
    linear = units["val/linear_frac"]
    if linear > 0.5:
        line += f", but {linear:.0%} of them are straight lines on these images"
    return f"{line}."


def _by_geometry(result: dict[str, Any]) -> str:
    """What `dead_expected_frac` says, for the heads that it is about: ReLU units without bias."""
    head = result["head"]
    plain = head["bias_init"] is None and head["init"] != "torch"
    if head["activation"] != "relu" or head["order"] != "activation-norm" or not plain:
        return ""
    expected = result["units"]["val/dead_expected_frac"]
    return f", where the features' geometry alone would leave {expected:.1%}"


def _gradient(result: dict[str, Any]) -> str:
    blackout = result["units"]["val/blackout_frac"]
    zero = result["grad"]["last"]["features_zero_frac"]
    if blackout == 1:
        constant = result["units"]["val/zero_frac"] == 1
        told = "the model is a constant" if constant else "no gradient passes the head any more"
        return f"No validation image opens any gate: {told}."
    if blackout > 0:
        return (
            f"On {blackout:.1%} of the validation images every gate is closed and the backbone "
            "learns nothing from such images: try head.activation=leaky_relu, a smaller "
            "optimizer.lr or head.order=norm-activation."
        )
    if math.isnan(zero):
        return "No training image had a label: what gradient they send was not measured."
    if zero > 0:
        return f"{zero:.1%} of the last epoch's images sent no gradient back through the head."
    cost = " dead units cost the head width, not the backbone its gradient."
    told = "Every image sent gradient back through the head"
    if math.isnan(result["grad"]["last"]["l2/backbone"]):
        told += ", though the frozen backbone has no use for it"
    return f"{told}{':' + cost if result['units']['val/dead_frac'] > 0 else '.'}"
