"""Tools that are made of several calls."""
