"""The demo's addresses: IPv6 as well as IPv4, for its server and for who opens it."""

import socket

import pytest

from demo import home
from demo.up import Addresses
from tests.support.system import free_port


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
    ],
)
def test_address_opens_in_a_browser(host: str, address: str) -> None:
    """An IPv6 address has brackets, and nobody can open the address that means all."""
    assert Addresses(host, 8000, None, None).gateway == address


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_port_is_probed_at_the_host_it_is_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is free can be used, one that has a listener cannot."""
    monkeypatch.setattr(home, "RELEASE_SECONDS", 0)
    port = free_port()
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    assert home.wait_until_free(host, port)
    with socket.create_server((host, port), family=family):
        assert not home.wait_until_free(host, port)
