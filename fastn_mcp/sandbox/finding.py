"""Which operation a request is. Pure. The paths are the operations' own, or what an account has in their place."""

from collections.abc import Mapping

from fastn_mcp.operation import Route
from fastn_mcp.sandbox.reply import not_allowed, not_found
from fastn_mcp.tools import CATALOG, AnyOperation


class Routes:
    """All operations by route. `other` are routes by tool name, where the account's differ."""

    def __init__(self, other: Mapping[str, Route]) -> None:
        self._routes = {operation: other.get(operation.tool_name(), operation.route) for operation in CATALOG}
        # Few have the same beginning, so that few patterns are tried.
        self._candidates: dict[tuple[str, str], list[AnyOperation]] = {}
        for operation, route in self._routes.items():
            self._candidates.setdefault((route.method, _beginning(route.path)), []).append(operation)

    def of(self, operation: AnyOperation) -> Route:
        return self._routes[operation]

    def find(self, method: str, path: str) -> AnyOperation:
        """Raises `Refusal` where there is no such path, or not by this method."""
        near = self._candidates.get((method, _beginning(path)), [])
        for operation in near + self._candidates.get((method, ""), []):
            if self._routes[operation].match(path) is not None:
                return operation
        if allowed := [route.method for route in self._routes.values() if route.match(path) is not None]:
            raise not_allowed(method, allowed)
        raise not_found()


def _beginning(path: str) -> str:
    """`/api/v1/workflows/wf_1/run` begins as `/api/v1/workflows`; what has a parameter there, as nothing."""
    beginning = "/".join(path.split("/", 4)[:4])
    return "" if "{" in beginning else beginning
