"""Tools of the sources to find and read tables; no module in this folder is a source."""
