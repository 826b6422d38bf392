"""Image files of every supported format to pixels."""
