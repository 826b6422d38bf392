"""What a metric has counted so far, to go on with later in another process."""

from typing import Any

from torchmetrics import Metric


def counted(metric: Metric) -> dict[str, Any]:
    """The sums of this process since the last reset, on the CPU, and the number of updates."""
    sums = {name: getattr(metric, name).cpu() for name in metric._defaults}
    return {"updates": metric._update_count, "sums": sums}


def go_on(metric: Metric, state: dict[str, Any]) -> None:
    """Put back what `counted` gave, on the metric's device."""
    metric._update_count = state["updates"]
    for name, value in state["sums"].items():
        setattr(metric, name, value.to(metric.device))
