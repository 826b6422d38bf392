"""The scores of a checkpoint on one set of images, with intervals over patients."""
