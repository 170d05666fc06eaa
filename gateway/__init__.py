"""The edge: HTTP, GraphQL over HTTP, WebSocket and SSE, metering's bulk door, tokens, health, telemetry.

``app`` puts the routes together; ``auth`` identifies the caller; ``graphql`` is the view, usable with any
Strawberry schema; ``usage_door`` takes NDJSON from metering; ``edge_store`` is what processes share
(allowances and persisted documents, disposable); ``drain`` ends long streams when the process has to stop.
"""
