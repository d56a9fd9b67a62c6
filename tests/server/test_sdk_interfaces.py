"""Which interfaces of the MCP SDK the package uses: public ones only, and none of the SDK's objects is patched."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from mcp.server import Server

import fastn_mcp

SOURCES = sorted(Path(fastn_mcp.__file__).parent.rglob("*.py"))


def sdk_imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield module and name of each import from the SDK, and of each use of its module `types`.

    The name is empty for a whole module.
    """
    uses_types = False
    for node in ast.walk(tree):  # imports before what is inside functions and classes
        match node:
            case ast.ImportFrom(module=str(module)):
                pairs = [(module, alias.name) for alias in node.names]
                uses_types = uses_types or ("mcp", "types") in pairs
            case ast.Import():
                pairs = [(alias.name, "") for alias in node.names]
            case ast.Attribute(value=ast.Name(id="types"), attr=name) if uses_types:
                pairs = [("mcp.types", name)]
            case _:
                continue
        yield from (pair for pair in pairs if pair[0].split(".")[0] in ("mcp", "mcp_types"))


def is_private(module: str, name: str) -> bool:
    """Whether a name or a part of its module begins with an underscore, or its module does not export it."""
    if any(part.startswith("_") for part in (*module.split("."), name)):
        return True
    if (module, name) == ("mcp", "types"):  # a public module
        return False
    return bool(name) and name not in getattr(import_module(module), "__all__", [name])


def sdk_variables(tree: ast.AST) -> set[str]:
    """Return the variables that are annotated with a name of the SDK, or built by one."""
    names, variables = {name for _, name in sdk_imports(tree)}, set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=variable, annotation=ast.expr() as type_):
                pass
            case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Call(func=type_)):
                pass
            case _:
                continue
        if names.intersection(each.id for each in ast.walk(type_) if isinstance(each, ast.Name)):
            variables.add(variable)
    return variables


def patches(tree: ast.AST) -> Iterator[str]:
    """Yield what sets attributes of the SDK's objects, or of any object by a way around assignments."""
    variables = sdk_variables(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=variable), ctx=ast.Store()) if variable in variables:
                yield ast.unparse(node)
            case ast.Subscript(value=ast.Call(func=ast.Name(id="vars")), ctx=ast.Store()):
                yield ast.unparse(node)
            case ast.Subscript(value=ast.Attribute(attr="__dict__"), ctx=ast.Store()):
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="setattr")):
                yield ast.unparse(node)
            case _:
                pass


def test_sdk_is_used_by_public_names_only() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    imports = {path: list(sdk_imports(tree)) for path, tree in trees.items()}
    assert [(path, *each) for path, found in imports.items() for each in found if is_private(*each)] == []
    assert [(path, patch) for path, found in imports.items() if found for patch in patches(trees[path])] == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("mcp.server._otel", "OpenTelemetryMiddleware"),
        ("mcp.shared._otel", ""),
        ("mcp.server.runner", "_dump_result"),
        ("mcp.server.runner", "modern_error_data"),
        ("mcp.types", "no_such_name"),
    ],
)
def test_private_name_is_noticed(module: str, name: str) -> None:
    assert is_private(module, name)


@pytest.mark.parametrize(
    "statement",
    [
        "def patch(server: Server[Any]) -> None: server.name = 'other'",
        "tool = types.Tool(); tool.name = 'other'",
        "server = Server('any'); server.name += 'other'",
        "vars(server)['name'] = 'other'",
        "server.__dict__['name'] = 'other'",
        "setattr(server, 'name', 'other')",
    ],
)
def test_patched_object_is_noticed(statement: str) -> None:
    assert list(patches(ast.parse(f"from mcp import types\nfrom mcp.server import Server\n{statement}")))


def test_replaced_middleware_is_the_only_default_of_the_sdk() -> None:
    assert [type(each).__name__ for each in Server("any").middleware] == ["OpenTelemetryMiddleware"]
