"""Types, ranges and choices of all commands' keys, checked before heavy libraries are imported."""

from fluoroscope.commands import CONF as CONF

# Any name is accepted below these keys: arguments of an activation, a network or an optimizer of
# timm, and labels.
OPEN_KEYS = (
    *("head.activation_args", "backbone.args", "backbone.contract", "data.label_map"),
    "optimizer.args",
)
