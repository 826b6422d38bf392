"""A package of your own, beside the clone or installed."""
