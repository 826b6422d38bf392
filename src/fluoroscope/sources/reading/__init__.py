"""Tools that the sources share to find and read tables; no module here is a source."""
