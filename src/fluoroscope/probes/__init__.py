"""Shortcut probes: what a model's score depends on."""
