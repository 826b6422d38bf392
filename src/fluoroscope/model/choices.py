"""Choices of the model's configuration keys, light to import: declared here and nowhere else."""

NORMS = ("batch", "layer", "none")
ORDERS = ("activation-norm", "norm-activation")
INITS = ("keras", "torch", "he")
LOSSES = ("bce", "focal")
WEIGHTS = ("hub", "file", "package", "none")
