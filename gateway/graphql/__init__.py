"""GraphQL over HTTP, WebSocket and SSE for a Strawberry schema, strict in what it takes and tells.

Read in a request's order: ``view`` takes it in, ``accept`` chooses how to answer, ``params`` reads
it, ``operations`` runs it. ``admission`` lets it in: ``persisted`` finds its text, ``documents`` parses
and validates, ``limits`` bounds it, ``price`` says what it costs. ``executor`` executes it within its
time, as ``planned`` (``plans`` are made once): ``plain_fields`` are read, the others resolved; ``leaving`` sees
whether anybody still waits. ``answers`` shapes what came out and masks what may not be told, ``keeping`` gives it
again. ``event_stream`` and ``websocket`` (which reads ``frames``) do the same for what lasts, as long as there
are ``places``, until ``farewell``.
"""
