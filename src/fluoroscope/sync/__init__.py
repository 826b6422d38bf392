"""Upload of W&B runs that were made offline."""
