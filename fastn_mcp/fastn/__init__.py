"""Fastn's data in our terms."""
