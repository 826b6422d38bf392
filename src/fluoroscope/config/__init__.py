"""Types, ranges and choices of all commands' keys, checked before heavy libraries are imported."""

from fluoroscope.commands import CONF as CONF

# Any name is accepted below these keys: arguments of an activation or a timm network, labels.
OPEN_KEYS = ("head.activation_args", "backbone.args", "backbone.contract", "data.label_map")
