"""The device of commands that use a trained model."""

from dataclasses import dataclass

from fluoroscope.config.schema import one_of


@dataclass
class OneDevice:
    """The section `trainer` of predict, explain and demo."""

    accelerator: str = one_of("auto", "cpu", "gpu")
