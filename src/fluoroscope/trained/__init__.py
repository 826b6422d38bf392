"""A trained model, and what makes its numbers usable: loading, calibration, operating points."""
