"""Sentences about a call, for whoever decides it."""
