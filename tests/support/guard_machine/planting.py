"""What faults are made of."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def always(result: Result) -> Callable[..., Result]:
    """Return a function that returns this, whatever it is given."""

    def answer(*_: object, **__: object) -> Result:
        return result

    return answer


def always_async(result: Result) -> Callable[..., Coroutine[Any, Any, Result]]:
    """Return a coroutine function that returns this, whatever it is given."""

    async def answer(*_: object, **__: object) -> Result:
        return result

    return answer
