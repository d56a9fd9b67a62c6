"""Fixtures that run the program, as for the tests of the command line."""

from cli.conftest import environment, fastn

__all__ = ["environment", "fastn"]
