"""Tests of what a workflow's code reads of its input."""

import time

import pytest

from fastn_mcp.records.code_input import MAX_CODE, InputUse, input_use

BEGIN = "export default async function (ctx) {\n"

CASES: dict[str, tuple[str, InputUse | None]] = {
    "destructured": (BEGIN + "const { sku, quantity: q = 2 } = ctx.input; }", InputUse(["sku", "quantity"])),
    "destructured with a default": (BEGIN + "const { sku } = ctx.input ?? {}; }", InputUse(["sku"])),
    "the rest too": (BEGIN + "const { sku, ...rest } = ctx.input; }", InputUse(["sku"], is_whole=True)),
    "by its name": (BEGIN + "f(ctx.input.sku, ctx.input?.note, ctx.input['a b']); }", InputUse(["sku", "note", "a b"])),
    "in a template": (BEGIN + "return `${ctx.input.sku}: sold`; }", InputUse(["sku"])),
    "another name for it": (BEGIN + "const data = ctx.input;\n  return data.sku; }", InputUse(["sku"])),
    "taken from the context": (BEGIN + "const { input, headers } = ctx;\n return input.sku; }", InputUse(["sku"])),
    "taken under another name": (BEGIN + "const { input: data } = ctx; return data.sku; }", InputUse(["sku"])),
    "another parameter": ("export default async (context) => context.input.sku;", InputUse(["sku"])),
    "destructured parameter": ("export default async ({ input, headers }) => input.sku;", InputUse(["sku"])),
    "nested parameter": ("export default async ({ input: { sku } }) => sku;", InputUse(["sku"])),
    "passed on": (BEGIN + "return list(ctx.input); }", InputUse([], is_whole=True)),
    "the context passed on": (BEGIN + "return list(ctx); }", InputUse([], is_whole=True)),
    "computed name": (BEGIN + "return ctx.input[name]; }", InputUse([], is_whole=True)),
    "not read": (BEGIN + "return { ok: true }; }", InputUse([])),
    "in comments only": (BEGIN + "// ctx.input.sku\n/* ctx.input.note */ return 1; }", InputUse([])),
    "after an address": (BEGIN + 'get("https://a.example/b"); return ctx.input.sku; }', InputUse(["sku"])),
    "name of a property": (BEGIN + "const input = ctx.input; return { input: input.sku }; }", InputUse(["sku"])),
    "no parameter": ("export default async function () { return 1; }", None),
    "no parameter of an arrow": ("export default async () => 1;", None),
    "no entry point": ("function run(ctx) { return ctx.input.sku; }", None),
    "no code": ("", None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_fields_of_the_input_are_found(case: str) -> None:
    code, expected = CASES[case]
    assert input_use(code) == expected


def test_value_that_is_no_code_has_no_fields() -> None:
    assert input_use(None) is None
    assert input_use("export default (ctx) => ctx.input.a;" + " " * MAX_CODE) is None


@pytest.mark.parametrize(
    "repeated",
    ["'", "`", "/*", "{", "export default ", "export default function ", "ctx.input ", "}=ctx.input ", "ctx   ",
     "const a=ctx.input;", "const {input}=ctx;", "({input:{", " "],
)  # fmt: skip
@pytest.mark.parametrize("begin", ["", "export default (ctx) =>", "export default function", "export default ({"])
def test_hostile_code_is_looked_through_quickly(begin: str, repeated: str) -> None:
    code = (begin + repeated * MAX_CODE)[:MAX_CODE]
    began = time.process_time()
    input_use(code)
    assert time.process_time() - began < 1.5


def test_many_fields_are_cut_and_said_to_be_more() -> None:
    use = input_use(BEGIN + "".join(f"ctx.input.f{number};" for number in range(100)) + "}")
    assert use is not None
    assert len(use.fields) == 30
    assert use.is_whole
