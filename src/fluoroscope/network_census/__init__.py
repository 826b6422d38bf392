"""The census of a given network on a set of images: counting, and a page."""
