"""The words that configuration keys accept where Python code checks them too.

Each set is declared here and nowhere else. The module imports nothing, so that a misspelt word is
refused before PyTorch is imported. A data source declares the words of its own keys in its module.
"""

NORMS = ("batch", "layer", "none")
ORDERS = ("activation-norm", "norm-activation")
INITS = ("keras", "torch", "he")
LOSSES = ("bce", "focal")
WEIGHTS = ("hub", "file", "package", "none")
SAMPLERS = ("shuffle", "balanced")
FEATURES = ("live", "cached")
ON_MISSING = ("stop", "skip")
ON_UNREADABLE = ("stop", "skip")
ON_DUPLICATE = ("stop", "drop", "keep")
UNCERTAIN = ("zeros", "ones", "ignore", "soft")
BLANK = ("zero", "ignore")
