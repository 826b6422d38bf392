"""Types, ranges and choices of every command's keys, checked before anything heavy is imported."""

from pathlib import Path

CONF = Path(__file__).resolve().parents[3] / "conf"
# Below these keys any name may stand: they are the arguments of the choice beside them.
OPEN_KEYS = ("head.activation_args", "backbone.args")
