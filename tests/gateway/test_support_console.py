"""The support console's files: its page, its operations, and npm's lock file."""

import json
import re
from pathlib import Path

import httpx
from graphql import OperationDefinitionNode, parse, validate
from starlette.applications import Starlette

from gateway.static_pages import SUPPORT_CONSOLE, page_routes, support_operations
from ide.build import FILES
from schema.build import build_schema

ROOT = Path(__file__).parents[2]
LOCK = json.loads((ROOT / "ide" / "package-lock.json").read_text())


def test_npm_packages_are_pinned_by_hash() -> None:
    """Every installation gets the same bytes from any registry; the lock names none."""
    packages = {name: package for name, package in LOCK["packages"].items() if name}

    assert {"sha512"} == {package["integrity"].partition("-")[0] for package in packages.values()}
    assert not any("resolved" in package for package in packages.values())
    assert "://" not in json.dumps([package.get("version") for package in packages.values()])
    for source in FILES:
        owner = re.match(r"(@[^/]+/)?[^/]+", source)
        assert owner is not None
        assert f"node_modules/{owner[0]}" in packages


def test_page_loads_only_served_files() -> None:
    """No address in it leads to another host."""
    page = (SUPPORT_CONSOLE / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page)
    served = {f"graphiql/assets/{name}" for name in FILES.values()}

    assert set(loaded) == served | {"graphiql/console.css", "graphiql/console.js"}
    assert "://" not in page


def test_operations_are_documented_and_valid() -> None:
    """Each starts with a comment and has a unique name."""
    schema, names = build_schema()._schema, []
    for operation in support_operations():
        document = parse(operation["query"])
        assert operation["query"].startswith("# ")
        assert validate(schema, document) == []
        names += [
            node.name.value
            for node in document.definitions
            if isinstance(node, OperationDefinitionNode) and node.name
        ]

    assert len(names) == len(set(names)) == len(list(support_operations())) >= 10


async def test_operations_are_served_with_the_page_headers() -> None:
    """Their variables have the defaults that let each run as it is opened."""
    app = httpx.ASGITransport(app=Starlette(routes=page_routes(panel=False)))
    async with httpx.AsyncClient(transport=app, base_url="http://console") as client:
        response = await client.get("/graphiql/operations.json")

    by_name = {row["name"]: row["variables"] for row in response.json()}
    assert by_name["06-preview"] == {"sku": "", "quantity": "0"}
    assert by_name["02-bill"] == {}  # the bar says whose
    assert "default-src 'none'" in response.headers["content-security-policy"]
