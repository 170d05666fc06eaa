"""Resolves a request to its document's text: ad hoc text, a persisted hash (APQ), or the trusted manifest."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from gateway.graphql.admission.best_effort_redis import BestEffortRedis
from gateway.graphql.errors import request_error
from gateway.graphql.request_params import RequestParams

SHA_256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
HOUR, DAY = 3_600, 86_400


class DocumentStore:
    """Documents by their SHA-256: for an hour until one is used by its hash, then for a day since its last use.

    While Redis is down, none is known.
    """

    def __init__(self, redis: BestEffortRedis) -> None:
        self._redis = redis

    async def get(self, sha: str) -> str | None:
        """Return the document with hash *sha*."""
        client = self._redis.client
        text = await self._redis.execute(lambda: client.getex(f"gw:document:{sha}", ex=DAY))
        return None if text is None else text.decode()

    async def put(self, sha: str, text: str) -> None:
        """Store *text* under its hash *sha*."""
        client = self._redis.client
        await self._redis.execute(lambda: client.set(f"gw:document:{sha}", text, ex=HOUR))


class PersistedDocuments:
    """Finds documents by hash or id.

    With a *trusted* manifest (id or SHA-256 → text), only its documents run, except for callers that may
    send ad hoc documents.
    """

    def __init__(self, store: DocumentStore, trusted: Mapping[str, str] | None = None) -> None:
        self._store = store
        self._trusted = trusted
        self._trusted_hashes = {_sha256(text): text for text in (trusted or {}).values()}
        self._stored_hashes: set[str] = set()

    async def find_text(self, params: RequestParams, *, ad_hoc: bool) -> str:
        """Return the text to run; a GraphQLError when there is none, or none that may run."""
        sha = _persisted_hash(params.extensions)
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
            _verify_hash(params.query, sha)
            return params.query
        return await self._load(sha)

    async def store(self, params: RequestParams) -> None:
        """Store a valid document that was sent with its hash."""
        sha = _persisted_hash(params.extensions)
        if sha and params.query and sha not in self._stored_hashes:
            await self._store.put(sha, params.query)
            self._stored_hashes = {*list(self._stored_hashes)[-999:], sha}

    def _find_trusted(self, name: str | None, text: str | None) -> str | None:
        if self._trusted is None:
            return None
        if text:
            return self._trusted_hashes.get(_sha256(text))
        return self._trusted.get(name or "") or self._trusted_hashes.get(name or "")

    async def _load(self, sha: str | None) -> str:
        text = await self._store.get(sha) if sha else None
        if text is None:
            raise request_error("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
        return text


def _persisted_hash(extensions: Mapping[str, Any] | None) -> str | None:
    """Return the hash of Apollo's persisted query protocol; None when the request has none."""
    persisted = (extensions or {}).get("persistedQuery")
    if persisted is None:
        return None
    sha = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
    if not (isinstance(sha, str) and SHA_256.fullmatch(sha) and persisted.get("version") == 1):
        raise request_error("PERSISTED_QUERY_NOT_SUPPORTED", "PersistedQueryNotSupported")
    return sha


def _verify_hash(text: str, sha: str | None) -> None:
    if sha is not None and _sha256(text) != sha:
        raise request_error(
            "BAD_REQUEST", "The document's SHA-256 is not the `sha256Hash` sent with it."
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
