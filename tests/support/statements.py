"""Random statements for the tool `query`: sensible ones, nonsense, and hostile ones."""

import random
from collections.abc import Callable, Sequence

from fastn_mcp.procedures.query.child_program import FUNCTIONS
from fastn_mcp.procedures.query.tables import TABLES

FOREVER = "with recursive t(x) as (select 1 union all select x + 1 from t)"

HOSTILE = (
    "explain select 1",
    "explain query plan select id from customers",
    "select * from sqlite_master",
    "select 1 from sqlite_schema",
    "select * from dbstat",
    "select 1 from dbstat",
    "with dbstat as (select 1) select 1 from main.dbstat",
    "select * from json_each('[1]')",
    "select * from pragma_table_info('customers')",
    "select fts3_tokenizer('simple')",
    "select load_extension('x')",
    "select hex(zeroblob(40000))",
    "select randomblob(9)",
    "select sqlite_version()",
    "pragma table_info(customers)",
    "attach ':memory:' as other",
    "delete from customers",
    "with c as (select 1) delete from customers",
    "insert into customers(id) values ('x')",
    "create table t(a)",
    "vacuum",
    "select 1; select 2",
    "select ?",
    "select rowid from customers",
    "select date('now', 'localtime')",
    "",
)
"""Statements that are refused."""

COSTLY = (
    f"{FOREVER} select count(*) from t",
    f"{FOREVER}, c as materialized (select printf('%90000s', x) y from t limit 100000) select max(y) from c",
    f"{FOREVER}, c as materialized (select printf('%900s', x) y from t limit 9000000) select max(y) from c",
    "with recursive t(x) as (select 1 union all select x + 1 from t limit 1000000)"
    " select count(*) from t a, t b, t c where a.x + b.x = c.x * 7",
    "with recursive t(x, y) as (select 1, 'a' union all select x + 1, substr(y || y, 1, 9000) from t)"
    " select group_concat(y) from t",
    f"{FOREVER} select median(x) from t",
    f"{FOREVER} select ago(x || ' days') from t",
    f"{FOREVER} select strftime('%Y', x) from t order by 1 desc",
    "select count(*) from (select replace(printf('%9000.c', 'a'), 'a', 'b') like '%a%b%a%b%a%b%a%b%a%b%a%')",
    "select count(*) from customers a, customers b, customers c, customers d, customers e, customers f, customers g,"
    " customers h, customers i, customers j, customers k, customers l, customers m, customers n, customers o"
    " where a.status > b.status or a.name || b.name || c.name || d.name like '%x%y%'",
    f"{FOREVER} select row_number() over (order by x desc), sum(x) over (partition by x % 7) from t",
    "with c0 as (select 1 x), "
    + ", ".join(f"c{n} as (select a.x from c{n - 1} a, c{n - 1} b)" for n in range(1, 40))
    + " select count(*) from c39",
)
"""Statements that would take all memory, or very long."""

_LITERALS = ("1", "0", "-1", "2.5", "9223372036854775807", "null", "''", "'x'", "'Active'", "'it''s'", "x'00ff'", "'%'")

_OF_ONE = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "median",
    "p90",
    "total",
    "length",
    "upper",
    "typeof",
    "abs",
    "date",
    "julianday",
    "strftime",
    "ago",
    "trim",
]

_OF_TWO = [
    "coalesce",
    "nullif",
    "max",
    "min",
    "instr",
    "replace",
    "substr",
    "printf",
    "strftime",
    "group_concat",
    "round",
    "ifnull",
    "lag",
    "mod",
]

_HIDDEN_NAMES = (
    "sqlite_master",
    "sqlite_temp_master",
    "dbstat",
    "pragma_table_list",
    "json_tree('{}')",
    "main.secrets",
)

_NOISE = ("(", ")", ",", ";", "--", "/*", "*/", "'", '"', "`", "[", "\0", "\ufeff", "?1", ":a", "@b", "union", "all")

_WORDS = [
    "select",
    "from",
    "where",
    "group",
    "by",
    "order",
    "limit",
    "with",
    "recursive",
    "as",
    "not",
    "exists",
    "in",
    "like",
    "glob",
    "case",
    "when",
    "end",
    "is",
    "null",
]


def random_statement(chance: random.Random) -> str:
    """Return a statement: most of them can be run."""
    kinds: Sequence[tuple[int, Callable[[random.Random], str]]] = (
        (10, _select),
        (3, _mutated),
        (2, _soup),
        (1, lambda chance: chance.choice(HOSTILE)),
    )
    make = chance.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
    return make(chance)


def _select(chance: random.Random, depth: int = 0) -> str:
    tables = chance.sample(sorted(TABLES), chance.choice((1, 1, 1, 2)))
    columns = [f"{name}.{column}" for name in tables for column in TABLES[name].types()]
    shown = [_expression(chance, columns, depth) for _ in range(chance.randint(1, 4))]
    source = ", ".join(tables)
    if depth < 2 and chance.random() < 0.1:
        source += f", ({_select(chance, depth + 1)}) as inner{depth}"
    parts = [f"select {'distinct ' * (chance.random() < 0.1)}{', '.join(shown)} from {source}"]
    if chance.random() < 0.5:
        parts.append(f"where {_condition(chance, columns, depth)}")
    if chance.random() < 0.2:
        parts.append(f"group by {chance.choice(columns)}")
    if chance.random() < 0.3:
        parts.append(f"order by {_expression(chance, columns, depth)}")
    if chance.random() < 0.3:
        parts.append(f"limit {chance.choice((0, 1, 20, 10**9))}")
    statement = " ".join(parts)
    if depth == 0 and chance.random() < 0.1:
        statement = f"with c as ({statement}) select * from c"
    if depth < 2 and chance.random() < 0.1:
        joined = chance.choice(("union", "union all", "except", "intersect"))
        statement += f" {joined} {_select(chance, depth + 1)}"
    return statement


def _expression(chance: random.Random, columns: Sequence[str], depth: int) -> str:
    if depth > 3 or chance.random() < 0.6:
        return chance.choice(columns)
    left = _expression(chance, columns, depth + 1)
    right = _expression(chance, columns, depth + 1)
    match chance.randrange(8):
        case 0:
            return chance.choice(_LITERALS)
        case 1:
            return f"{chance.choice(_OF_ONE)}({left})"
        case 2:
            return f"{chance.choice(_OF_TWO)}({left}, {right})"
        case 3:
            return f"({left} {chance.choice(('=', '<>', '<', '||', '+', '*', '/', 'and', 'or', 'like', 'is'))} {right})"
        case 4:
            return f"case when {left} then {right} end"
        case 5:
            return f"({_select(chance, depth + 2)} limit 1)"
        case 6:
            return f"({left} in ({_select(chance, depth + 2)}))"
        case _:
            return f"sum({left}) over (order by {right})"


def _condition(chance: random.Random, columns: Sequence[str], depth: int) -> str:
    column = chance.choice(columns)
    match chance.randrange(4):
        case 0:
            return f"{column} is not null"
        case 1:
            return f"{column} in ({_select(chance, depth + 2)})"
        case _:
            return f"{column} {chance.choice(('=', '<>', '<', 'like', 'is'))} {chance.choice(_LITERALS)}"


def _mutated(chance: random.Random) -> str:
    """Return a statement in which a few words are replaced, doubled or left out."""
    words = _select(chance).split(" ")
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(words))
        others = (*_LITERALS, *_HIDDEN_NAMES, *_NOISE, *_WORDS, "", words[place] * 2, words[place] * 300)
        words[place] = chance.choice(others)
    return " ".join(words)


def _soup(chance: random.Random) -> str:
    parts = (*_LITERALS, *_HIDDEN_NAMES, *_NOISE, *_WORDS, *TABLES, *FUNCTIONS)
    return " ".join(["select", *(chance.choice(parts) for _ in range(chance.randint(1, 40)))])
