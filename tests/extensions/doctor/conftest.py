"""Fixtures that run the program, as for the tests of the command line, and a certificate authority."""

import pytest
import trustme
from cli.conftest import environment, fastn

__all__ = ["environment", "fastn"]


@pytest.fixture(scope="package")
def ca() -> trustme.CA:
    return trustme.CA()
