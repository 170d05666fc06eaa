"""GraphQL over HTTP, WebSocket and SSE for a Strawberry schema, strict in what it takes and tells.

Read in a request's order: ``view`` takes it in, ``accept`` chooses how to answer, ``params`` reads
it, ``persisted`` finds its text, ``admission`` lets the operation in (``documents`` parses and
validates, ``limits`` bounds it, ``price`` says what it costs), ``answers`` shapes what came out and
masks what may not be told. ``event_stream`` and ``websocket`` do the same for what lasts.
"""
