"""Synthetic chest films, drawn from geometry and attenuation coefficients."""
