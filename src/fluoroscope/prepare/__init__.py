"""What is fetched or made once, before any run."""
