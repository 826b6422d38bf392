"""The state of a head's metrics within a training window, for a checkpoint."""

from collections.abc import Mapping
from typing import Any

from torchmetrics import Metric

from fluoroscope.diagnostics.head_metrics import HeadMetrics


def head_state(metrics: HeadMetrics) -> dict[str, Any]:
    """State of this process in the current training window, on the CPU."""
    sums = {
        "fed": metrics.starved.fed,
        "counts": metrics.feature_gradient.counts,
        "unit_gradient": metrics.unit_gradient.sums,
    }
    return {
        "census": metric_state(metrics.census["train"]),
        "features": metric_state(metrics.features["train"]),
        **{name: None if value is None else value.cpu() for name, value in sums.items()},
    }


def restore_head(metrics: HeadMetrics, state: Mapping[str, Any]) -> None:
    """Continue a training window from what `head_state` returned."""
    device = metrics.weight.device
    restore_metric(metrics.census["train"], state["census"])
    restore_metric(metrics.features["train"], state["features"])
    metrics.starved.fed, metrics.feature_gradient.counts, metrics.unit_gradient.sums = (
        None if (value := state.get(name)) is None else value.to(device)
        for name in ("fed", "counts", "unit_gradient")  # earlier checkpoints lack the last
    )


def metric_state(metric: Metric) -> dict[str, Any]:
    """This process's sums since the last reset, on the CPU, and the number of updates."""
    sums = {name: getattr(metric, name).cpu() for name in metric._defaults}
    return {"updates": metric._update_count, "sums": sums}


def restore_metric(metric: Metric, state: dict[str, Any]) -> None:
    """Put back what `metric_state` returned, on the metric's device."""
    metric._update_count = state["updates"]
    for name, value in state["sums"].items():
        setattr(metric, name, value.to(metric.device))
