"""Hostile documents and bodies: those of 32 KB for the small schema, and some for billing's own."""

import json
from collections.abc import Iterator

KB_32 = 32_000
KB_200 = 200_000


def _fill(unit: str, around: str = "{%s}", size: int = KB_32) -> str:
    return around % (unit * ((size - len(around)) // len(unit)))


def _tokens(unit: str, unit_tokens: int, around: str = "{%s}") -> str:
    return around % (unit * (1_450 // unit_tokens))


def _doubling(levels: int, body: str) -> str:
    """A chain of fragments, each of which spreads the next one twice."""
    chain = " ".join(
        f"fragment F{n} on Leaf {{ {body.replace('NEXT', f'F{n + 1}')} }}" for n in range(levels)
    )
    return f"{{ leaf {{ ...F0 }} }} {chain} fragment F{levels} on Leaf {{ id }}"


def documents() -> Iterator[tuple[str, str]]:
    """Yield each document with its name."""
    yield "fragments doubled 60 times", _doubling(60, "...NEXT ...NEXT")
    yield "objects doubled 14 times", _doubling(14, "a: again { ...NEXT } b: again { ...NEXT }")
    yield "fragments doubled through inline ones", _doubling(40, "... { ...NEXT } ... { ...NEXT }")
    yield (
        "a cycle of 150 fragments",
        "{ leaf { ...F0 } }"
        + "".join(f" fragment F{n} on Leaf {{ ...F{(n + 1) % 150} }}" for n in range(150)),
    )
    yield (
        "fragments nobody spreads",
        "{ hello }" + "".join(f" fragment F{n} on Leaf {{ again {{ id }} }}" for n in range(200)),
    )
    yield (
        "dense fragments",
        "{ leaf { ...F0 } }"
        + "".join(
            f" fragment F{n} on Leaf {{ id {' '.join(f'...F{m}' for m in range(n + 1, min(60, n + 14)))} }}"
            for n in range(60)
        ),
    )
    yield (
        "distinct fragments in one place",
        "{ leaf {"
        + "".join(f"...F{n} " for n in range(99))
        + "} }"
        + "".join(f" fragment F{n} on Leaf {{ a{n % 50}: id }}" for n in range(99)),
    )
    yield "one field over and over", _tokens("hello ", 1)
    yield "one object over and over", _tokens("leaf{id} ", 4)
    yield "inline fragments over and over", _tokens("...{leaf{id}} ", 7)
    yield "inline fragments within each other", "{" + "...{" * 180 + "hello" + "}" * 181
    yield "nested as deep as tokens go", "{leaf" + "{again" * 600 + "{id}" + "}" * 601
    yield "nested too deep for a stack", "{a" * 950 + "}" * 950
    yield "nested and doubled", "{leaf" + "{again{id} again" * 150 + "{id}" + "}" * 151
    yield "aliases", "{" + " ".join(f"a{n}: hello" for n in range(480)) + "}"
    yield "directives", "{ hello " + "@skip(if: false) " * 270 + "}"
    yield "unknown directives", "{ hello " + "@a " * 900 + "}"
    yield "unknown fields", "{" + " ".join(f"helo{n}" for n in range(1_450)) + "}"
    yield "unknown long fields", "{" + " ".join(f"{'h' * 20}{n}" for n in range(1_000)) + "}"
    yield "unknown types", "{" + " ".join(f"... on Leav{n} {{ id }}" for n in range(300)) + "}"
    yield "operations", " ".join(f"query Q{n} {{ hello }}" for n in range(400))
    yield "variables", f"query ({' '.join(f'$v{n}: Int' for n in range(480))}) {{ hello }}"
    yield (
        "variables nobody defined",
        "{" + " ".join(f"a{n}: hello(name: $v{n})" for n in range(45)) + "}",
    )
    yield "arguments", "{ hello(" + " ".join(f"a{n}: 1" for n in range(600)) + ") }"
    yield "a list as long as tokens go", "{ hello(name: [" + "1 " * 1_450 + "]) }"
    yield "lists within each other", "{ hello(name: " + "[" * 900 + "]" * 900 + ") }"
    yield "objects within each other", "{ hello(name: " + "{a:" * 600 + "1" + "}" * 600 + ") }"
    yield "a long number", "{ leaves(first: " + "9" * 31_000 + ") { nodes { id } } }"
    yield "a long fraction", "{ leaves(first: 1." + "9" * 31_000 + ") { nodes { id } } }"
    yield "a long string", '{ hello(name: "' + "x" * 31_000 + '") }'
    yield "escapes", '{ hello(name: "' + "\\u0041" * 5_000 + '") }'
    yield "a block of lines", '{ hello(name: """' + "\n " * 15_000 + '""") }'
    yield "a block of quotes", '{ hello(name: """' + '\\""" ' * 6_000 + '""") }'
    yield "a string that never ends", '{ hello(name: "' + "x" * 31_000
    yield "comments", "#\n" * 16_000 + "{ hello }"
    yield "commas", "," * 31_000 + "{ hello }"
    yield "byte order marks", "\ufeff" * 10_000 + "{ hello }"
    yield "brackets", "{" * 31_000
    yield "a long name", "{" + "h" * 31_000 + "}"
    yield (
        "introspection within itself",
        "{__schema{types" + "{fields{type" * 90 + "{name}" + "}}" * 90 + "}}",
    )
    yield "introspection over and over", "{" + "__schema{types{name}} " * 200 + "}"
    yield "pages of pages", "{ leaves(first: 100) { nodes { again { again { id } } } } }"
    yield "a page without end", "{ leaves(first: 2147483647) { nodes { id } } }"
    yield "deprecated syntax", "{" + "hello(name:$a)" * 200


def billing_documents(customer: str) -> Iterator[tuple[str, str]]:
    """Yield documents that are valid, or nearly so, on the gateway's schema, with their names."""
    own = f'customer(id: "{customer}")'
    invented = " ".join(f'"in_{number:024}"' for number in range(30))
    invoice = "invoice { id customer { currentPeriod { NEXT } } }"
    deep = f"{{ {own} {{ currentPeriod {{ NEXT }} }} }}"
    for _ in range(3):
        deep = deep.replace("NEXT", invoice)
    yield "periods within periods", deep.replace("NEXT", "start")
    yield (
        "breakdowns over and over",
        f"{{ {own} {{ currentPeriod {{ "
        + " ".join(f"a{n}: usage(by: APP) {{ key amount {{ formatted }} }}" for n in range(40))
        + " } } }",
    )
    yield "invented ids", f"{{ nodes(ids: [{invented}]) {{ id }} }}"
    yield "the same id over and over", "{ nodes(ids: [" + f'"{customer}" ' * 100 + "]) { id } }"
    yield (
        "periods over and over",
        f"{{ {own} {{ " + " ".join(f"a{n}: currentPeriod {{ start }}" for n in range(45)) + " } }",
    )
    yield (
        "errors behind many lines",
        "\n" * 1_900
        + f"{{ {own} {{ "
        + " ".join(f'a{n}: period(month: "x") {{ start }}' for n in range(45))
        + " } }",
    )
    yield (
        "unknown fields that are nearly known",
        "{" + " ".join(f"a{n}: custome(id: 1) {{ id }}" for n in range(45)) + "}",
    )
    yield "a long id", '{ node(id: "in_' + "x" * 31_000 + '") { id } }'
    yield (
        "a long cursor",
        f'{{ {own} {{ invoices(after: "' + "QQ" * 15_000 + '") { nodes { id } } } }',
    )
    yield (
        "wide introspection",
        "{__schema{types{" + " ".join(f"a{n}:fields{{type{{name}}}}" for n in range(40)) + "}}}",
    )
    yield "introspection within data", f"{{ __schema {{ types {{ name }} }} {own} {{ id }} }}"


def bodies() -> Iterator[tuple[str, bytes]]:
    """Yield request bodies that are hostile outside the document as well."""
    for name, document in documents():
        yield name, json.dumps({"query": document}).encode()[:65_536]
    query = "query ($c: Colour!, $n: String!, $i: Int!) { hello(name: $n) colour(of: $c) leaves(first: $i) { nodes { id } } }"
    for name, value in {
        "a long variable": "x" * 30_000,
        "a list of variables": [1] * 10_000,
        "a deep variable": json.loads("[" * 900 + "]" * 900),
        "a wide variable": {f"k{n}": n for n in range(2_000)},
        "a number": 10**18,
    }.items():
        for variable in ("c", "n", "i"):
            variables = {"c": "CRIMSON", "n": "n", "i": 1, variable: value}
            yield (
                f"{name} as ${variable}",
                json.dumps({"query": query, "variables": variables}).encode(),
            )
    for name in ('Did you mean "', "query", "\\ud800", "?"):
        long = (name * KB_200)[:KB_200]
        body = {"query": "query A { hello } query B { hello }", "operationName": long}
        yield f"an operation named {name}", json.dumps(body).encode()
    deltas = "mutation ($d: [UsageDeltaInput!]!) { recordUsage(deltas: $d) { accepted } }"
    for name, value in {
        "empty objects": [{}] * 30_000,
        "numbers for objects": [1] * 30_000,
        "unknown keys": [{f"k{n}": n for n in range(3_000)}],
        "unknown keys in each": [{"a": 1, "b": 2}] * 10_000,
    }.items():
        yield f"{name} as deltas", json.dumps({"query": deltas, "variables": {"d": value}}).encode()
    yield "a long id of a document", json.dumps({"documentId": "Did you mean" * 10_000}).encode()
    yield "braces", b'{"a":' * 5_000
    yield "escaped quotes", b'{"query":"' + b'\\"' * 15_000 + b'"}'
    yield "names over and over", b"{" + b",".join([b'"query":"{ hello }"'] * 1_500) + b"}"
    yield (
        "a deep extension",
        b'{"query":"{ hello }","extensions":' + b'{"a":' * 800 + b"1" + b"}" * 801,
    )
