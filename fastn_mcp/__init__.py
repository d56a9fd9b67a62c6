"""Administer Fastn from an agent, safely."""

__version__ = "0.1.0"
