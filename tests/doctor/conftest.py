"""The program, as the tests of the command line start it."""

from cli.conftest import environment, fastn

__all__ = ["environment", "fastn"]
