"""Audit a collection before training: patients, duplicates, images and labels."""

from fluoroscope.audit.audit_page import run, write
from fluoroscope.audit.inspection import inspect

__all__ = ["inspect", "run", "write"]
