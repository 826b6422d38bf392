"""Predict films with a trained model: from Python, and into a table."""
