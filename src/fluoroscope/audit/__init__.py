"""What is wrong with a collection before a network learns it: patients, copies, images, labels."""

from fluoroscope.audit.inspection import inspect
from fluoroscope.audit.report import run, write

__all__ = ["inspect", "run", "write"]
