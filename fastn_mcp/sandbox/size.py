"""How large the account is that the sandbox begins with."""

from enum import Enum


class Size(Enum):
    """The large one holds everything of the small one."""

    SMALL = "small"
    LARGE = "large"
