"""An x-ray of your x-ray classifier: what the head's activation does to the gradient."""

__version__ = "0.1.0"
