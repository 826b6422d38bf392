"""Types, ranges and choices of all commands' keys, checked before heavy libraries are imported."""

from pathlib import Path

CONF = Path(__file__).resolve().parents[3] / "conf"
# Any name is accepted below these keys: arguments of an activation or a timm network, labels.
OPEN_KEYS = ("head.activation_args", "backbone.args", "data.label_map")
