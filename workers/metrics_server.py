"""Serves a worker's own Prometheus metrics."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from billing.services import startup_error
from billing.settings import Settings


@contextmanager
def serve_metrics(settings: Settings) -> Iterator[None]:
    """Serve metrics if a port is configured; StartupError if the address cannot be bound."""
    host, port = settings.host, settings.metrics_port
    if not port:
        yield
        return
    try:
        server, _ = start_http_server(port, host)
    except (OSError, UnicodeError) as error:
        where = f"BILLING_METRICS_PORT {port} of BILLING_HOST {host!r}"
        cure = "give a port that nobody has, of an address of this machine"
        raise startup_error(f"Nothing can listen on {where} ({error}); {cure}.") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
