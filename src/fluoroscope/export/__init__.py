"""Export a trained model as one file that needs neither this package nor its configuration."""
