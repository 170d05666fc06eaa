"""Where a document's text comes from: the request, a hash sent before (APQ), or the trusted manifest."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.graphql.errors import request_error
from gateway.graphql.request_params import Params

SHA_256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class DocumentStore(Protocol):
    """Texts by their SHA-256, shared by the gateway's processes; may forget."""

    async def document(self, sha: str) -> str | None:
        """The text kept under *sha*."""

    async def keep_document(self, sha: str, text: str) -> None:
        """Keep *text* under *sha*."""


class PersistedDocuments:
    """Finds documents by hash or id.

    With a *trusted* manifest (id or SHA-256 → text) nothing else runs, except for those who may send
    any document (`text`'s *ad_hoc*).
    """

    def __init__(self, store: DocumentStore, trusted: Mapping[str, str] | None = None) -> None:
        self._store = store
        self._trusted = trusted
        self._shas = {_sha(text): text for text in (trusted or {}).values()}
        self._kept: set[str] = set()

    async def text(self, params: Params, *, ad_hoc: bool) -> str:
        """The text to run; a GraphQLError when there is none, or none that may run."""
        sha = _hash_in(params.extensions)
        name = params.document_id or sha
        if name is None and not params.query:
            raise request_error("BAD_REQUEST", "Send a GraphQL document in `query`.")
        trusted = self._find_trusted(name, params.query)
        if trusted is not None:
            return trusted
        if self._trusted is not None and not ad_hoc:
            raise request_error(
                "DOCUMENT_NOT_TRUSTED", "Only the documents of the panel's manifest run here."
            )
        if params.query:
            _must_match(params.query, sha)
            return params.query
        return await self._stored(sha)

    async def remember(self, params: Params) -> None:
        """Keep a document that turned out to be valid for those who will send its hash alone."""
        sha = _hash_in(params.extensions)
        if sha and params.query and sha not in self._kept:
            await self._store.keep_document(sha, params.query)
            self._kept = {*list(self._kept)[-999:], sha}

    def _find_trusted(self, name: str | None, text: str | None) -> str | None:
        if self._trusted is None:
            return None
        if text:
            return self._shas.get(_sha(text))
        return self._trusted.get(name or "") or self._shas.get(name or "")

    async def _stored(self, sha: str | None) -> str:
        text = await self._store.document(sha) if sha else None
        if text is None:
            raise request_error("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
        return text


def _hash_in(extensions: Mapping[str, Any] | None) -> str | None:
    """The hash of Apollo's persisted query protocol; None without one."""
    persisted = (extensions or {}).get("persistedQuery")
    if persisted is None:
        return None
    sha = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
    if not (isinstance(sha, str) and SHA_256.fullmatch(sha) and persisted.get("version") == 1):
        raise request_error("PERSISTED_QUERY_NOT_SUPPORTED", "PersistedQueryNotSupported")
    return sha


def _must_match(text: str, sha: str | None) -> None:
    if sha is not None and _sha(text) != sha:
        raise request_error(
            "BAD_REQUEST", "The document's SHA-256 is not the `sha256Hash` sent with it."
        )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
