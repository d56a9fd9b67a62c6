"""Fastn's data in our terms: how a row is read, and what it says of the state of what it is about."""
