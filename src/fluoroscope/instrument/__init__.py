"""The census of any network's activations: in a plain loop, in Lightning, in Transformers."""

from fluoroscope.instrument.watching import Units

__all__ = ["Units"]
