"""A secret's value from the server's environment, so that it never passes through a model. Pure.

Only names that the operator allows: an agent could otherwise read out the environment into Fastn.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from fastn_mcp.errors import NotSent
from fastn_mcp.offer import Offer
from fastn_mcp.redaction import Redactor
from fastn_mcp.tools.secrets import CreateSecret

C = TypeVar("C", bound=Offer[Any])

_OURS = "this variable holds a setting or a secret of this server itself, which is never given out."


class SecretValues:
    """The variables of `environment` whose names match one of `allowed`, without those of this server itself.

    Whatever `allowed` says, a variable named FASTN_* or one that holds a secret of `own` is not given out.
    """

    def __init__(self, environment: Mapping[str, str], allowed: Sequence[str], own: Iterable[str] = ()) -> None:
        self._own = Redactor(own)
        self._environment = environment
        self._allowed = tuple(allowed)

    def fill(self, call: C) -> C:
        """The call with its secret's value in place. Raises `NotSent`."""
        if not isinstance(call, CreateSecret) or call.value_from_env is None:
            return call
        name = call.value_from_env
        if name.upper().startswith("FASTN_"):
            raise NotSent(f"value_from_env: {_OURS}", "Name a variable that holds the value itself.")
        if not any(fnmatchcase(name, pattern) for pattern in self._allowed):
            raise NotSent(
                "value_from_env: this server does not give out a variable of this name.",
                "A person can allow it: FASTN_SECRET_ENV=NAME,NAME where the server is started.",
            )
        value = self._environment.get(name)
        if not value:
            raise NotSent(
                "value_from_env: this variable is not set.", "A person can set it where the server is started."
            )
        if self._own.find(value):
            raise NotSent(f"value_from_env: {_OURS}", "Name a variable that holds another value.")
        return call.model_copy(update={"value": value, "value_from_env": None})
