"""Explanations of single films: maps of the image, units of the head, agreement with boxes."""
