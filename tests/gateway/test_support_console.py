"""What Support's desk is made of: its own three files, its questions, and what npm's lock pins."""

import json
import re
from pathlib import Path

import httpx
from graphql import OperationDefinitionNode, parse, validate
from starlette.applications import Starlette

from gateway.static_pages import DESK, operations, web_pages
from ide.build import FILES
from schema.build import build_schema

ROOT = Path(__file__).parents[2]
LOCK = json.loads((ROOT / "ide" / "package-lock.json").read_text())


def test_every_package_is_pinned_by_its_content() -> None:
    """Whoever sets up gets the same bytes, from whatever registry; the lock names none."""
    packages = {name: each for name, each in LOCK["packages"].items() if name}

    assert {"sha512"} == {each["integrity"].partition("-")[0] for each in packages.values()}
    assert not any("resolved" in each for each in packages.values())
    assert "://" not in json.dumps([each.get("version") for each in packages.values()])
    for source in FILES:
        owner = re.match(r"(@[^/]+/)?[^/]+", source)
        assert owner is not None
        assert f"node_modules/{owner[0]}" in packages


def test_the_page_asks_for_what_is_served_here_and_nothing_else() -> None:
    """No address in it leads to another host."""
    page = (DESK / "index.html").read_text()
    asked = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page)
    served = {f"/graphiql/assets/{name}" for name in FILES.values()}

    assert set(asked) == served | {"/graphiql/desk.css", "/graphiql/desk.js"}
    assert "://" not in page


def test_every_question_says_what_it_is_for_and_fits_the_schema() -> None:
    """A comment before anything else, one operation each, no two of one name."""
    schema, names = build_schema()._schema, []
    for each in operations():
        document = parse(each["query"])
        assert each["query"].startswith("# ")
        assert validate(schema, document) == []
        names += [
            node.name.value
            for node in document.definitions
            if isinstance(node, OperationDefinitionNode) and node.name
        ]

    assert len(names) == len(set(names)) == len(list(operations())) >= 10


async def test_the_questions_are_served_under_the_pages_own_policy() -> None:
    """With their variables at the defaults that let each run as it is opened."""
    app = httpx.ASGITransport(app=Starlette(routes=web_pages(panel=False)))
    async with httpx.AsyncClient(transport=app, base_url="http://desk") as client:
        answer = await client.get("/graphiql/operations.json")

    by_name = {each["name"]: each["variables"] for each in answer.json()}
    assert by_name["06-preview"] == {"sku": "", "quantity": "0"}
    assert by_name["02-bill"] == {}  # the bar says whose
    assert "default-src 'none'" in answer.headers["content-security-policy"]
