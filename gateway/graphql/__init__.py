"""GraphQL over HTTP, WebSocket and SSE for a Strawberry schema, strict in what it accepts and reveals.

Read in a request's order: ``view`` receives it, ``accept`` chooses how to answer, ``params`` reads
it, ``operations`` runs it. ``admission`` lets it in: ``persisted`` finds its text, ``documents`` parses
and validates, ``limits`` bounds it, ``price`` says what it costs. ``executor`` executes it within its
time, as ``planned`` (its ``execution_plan`` is made once): ``plain_fields`` are read, the others resolved; ``leaving``
checks whether anybody still waits. ``answers`` shapes the result and masks unexpected errors, ``keeping``
gives it again. ``event_stream`` and ``websocket`` (which reads ``frames``) do the same for subscriptions, as long
as there are ``places``, until ``farewell``.
"""
