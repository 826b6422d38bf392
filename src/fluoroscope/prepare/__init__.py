"""Preparations before any run: an audited, resized copy of a collection; backbone weights."""
