"""The page for panel writers names every code that a client can meet."""

import re
from pathlib import Path

from billing.errors import ErrorCode
from gateway.graphql.websocket import CloseCode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "panel.md").read_text()
SOURCES = ("gateway", "resolvers", "schema")


def test_every_error_code_says_what_to_do() -> None:
    """Those of payloads, and those that the gateway gives to an error of GraphQL."""
    given = re.compile(
        r'(?:request_error|HttpError|error)\(\s*(?:\d+, )?"([A-Z_]+)"|"code": "([A-Z_]+)"'
    )
    codes = {
        code
        for folder in SOURCES
        for file in (ROOT / folder).rglob("*.py")
        for found in given.findall(file.read_text())
        for code in found
        if code
    }

    missing = {code for code in codes | set(ErrorCode) if f"`{code}`" not in PAGE}

    assert {"TIMEOUT", "RATE_LIMITED", "DOCUMENT_NOT_TRUSTED"} <= codes
    assert missing == set()


def test_every_close_code_says_what_to_do() -> None:
    """A client that knows them reconnects where it helps, and only there."""
    assert [code for code in CloseCode if f"| {code.value} |" not in PAGE] == []
