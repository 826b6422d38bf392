"""A local page to try a trained model on one film at a time."""
