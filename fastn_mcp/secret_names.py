"""Which names in somebody's data stand before a secret. Pure."""

import re
from functools import lru_cache

from pydantic import JsonValue

HIDDEN = "[hidden]"
"""What stands in the place of a secret."""

_SECRET = re.compile(
    r"passw|passphrase|passcode|secret|token|credential|authori[sz]ation|bearer|cookie|signature|connection[-_ ]?string"
    r"|(api|private|access|signing|encryption|shared|client|master)[-_ ]?key|^(pwd|pin|otp|pass|dsn)$",
    re.IGNORECASE,
)
_ABOUT_ONE = re.compile(r"([-_](id|ids|name|type|at|count|url)|I[dD]s?|Name|Type|At|Count|Url|URL)$")


@lru_cache(4096)  # the same few names stand in each row of a list
def is_secret(name: str) -> bool:
    """Whether a value of this name is a secret, as `clientSecret` is and `secretId` is not."""
    return _SECRET.search(name) is not None and _ABOUT_ONE.search(name) is None


def hidden(value: JsonValue) -> JsonValue:
    """The value without the texts that stand under a name of a secret."""
    if isinstance(value, list):
        return [hidden(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: HIDDEN if isinstance(item, str) and item and is_secret(name) else hidden(item)
        for name, item in value.items()
    }
