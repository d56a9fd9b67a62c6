"""Composition root: from settings to a running server."""
