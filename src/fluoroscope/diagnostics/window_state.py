"""The state of a metric within a window, for a checkpoint."""

from typing import Any

from torchmetrics import Metric


def metric_state(metric: Metric) -> dict[str, Any]:
    """This process's sums since the last reset, on the CPU, and the number of updates."""
    sums = {name: getattr(metric, name).cpu() for name in metric._defaults}
    return {"updates": metric._update_count, "sums": sums}


def restore_metric(metric: Metric, state: dict[str, Any]) -> None:
    """Put back what `metric_state` returned, on the metric's device."""
    metric._update_count = state["updates"]
    for name, value in state["sums"].items():
        setattr(metric, name, value.to(metric.device))
