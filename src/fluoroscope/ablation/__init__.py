"""Many heads on one backbone."""
