"""GraphQL over HTTP, WebSocket and SSE for a Strawberry schema, strict in what it accepts and reveals.

In the order of a request: ``http`` receives it, ``request_params`` reads it, ``runner`` runs it:
``admission`` admits its operation, ``execution`` executes it, ``responses`` builds the body and masks
unexpected errors. ``sse`` and ``websocket`` do the same for subscriptions, within ``connection_limiter``,
until ``shutdown_notifier`` ends them.
"""
