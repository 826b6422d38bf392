"""Measurements of the project itself, as ratios within one run."""
