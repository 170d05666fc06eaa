"""Random requests never cause a 500 unless a fault was added."""

import asyncio
from typing import Any, get_args, get_origin
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import sdk
from sandbox.__main__ import create_app
from sandbox.actions import Routes
from sandbox.admin import Sandbox
from sandbox.params import NOT_SIMULATED
from sandbox.settings import Settings

TABLE = Routes().operations
odd = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "0", "1", "-1", "true", "1e5", "9" * 17, "1.000000000001", "usd", "c1", "i1"]
    ),
    st.integers(-5, 5).map(str),
)


def value_strategy(hint: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return a strategy for one parameter: mostly of its type, sometimes not."""
    strategies = [odd]
    for option in sdk.options(hint):
        if get_origin(option) is list:
            strategies.append(st.lists(value_strategy(get_args(option)[0], depth), max_size=3))
        elif get_origin(option) is dict:
            strategies.append(
                st.dictionaries(st.sampled_from(["a", "gte", "x[y"]), odd, max_size=2)
            )
        elif hasattr(option, "__required_keys__") and depth < 3:
            strategies.append(structure_strategy(option, depth + 1))
    if choices := sdk.choices(hint):
        strategies.append(st.sampled_from(choices))
    return st.one_of(strategies[1:] + strategies)


def structure_strategy(kind: type, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for a set of fields, the required ones mostly among them."""
    hints, required = sdk.fields(kind)
    usable = {
        name: value_strategy(h, depth) for name, h in hints.items() if name not in NOT_SIMULATED
    }
    needed = {name: usable[name] for name in required if name in usable}
    return st.fixed_dictionaries(
        needed, optional={n: s for n, s in usable.items() if n not in needed}
    )


def encode_form(value: Any, name: str = "") -> list[str]:
    """Encode nested parameters as a form."""
    if isinstance(value, dict):
        pairs = [(f"{name}[{key}]" if name else key, item) for key, item in value.items()]
        return [part for key, item in pairs for part in encode_form(item, key)]
    if isinstance(value, list):
        return [part for n, item in enumerate(value) for part in encode_form(item, f"{name}[{n}]")]
    return [f"{quote(name, safe='')}={quote(value, safe='')}"]


def send(sandbox: Sandbox, method: str, path: str, form: bytes) -> httpx.Response:
    """Send one request to the application itself."""
    content = {} if method == "GET" else {"content": form}
    url = f"http://x{path}" + (f"?{form.decode('latin-1')}" if method == "GET" else "")

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(sandbox))
        async with httpx.AsyncClient(transport=transport) as http:
            headers = {"authorization": "Bearer sk_test_1"}
            return await http.request(method, url, headers=headers, **content)

    return asyncio.run(request())


@pytest.fixture(scope="module")
def embedded() -> Sandbox:
    """An account with a customer c1, a draft i1 and a bill i2."""
    sandbox = Sandbox(Settings(limits=False, latency=False))
    for path, form in (
        ("/v1/customers", b"payment_method=pm_card_visa"),
        ("/v1/products", b"id=p1&name=P"),
    ):
        assert send(sandbox, "POST", path, form).status_code == 200
    return sandbox


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_random_parameters_never_cause_a_500(embedded: Sandbox, data: st.DataObject) -> None:
    """Each operation, with its parameters in any combination."""
    operation = data.draw(st.sampled_from(list(TABLE.values())))
    method, template = operation.endpoint.split(" ")
    rows = embedded.account.rows
    names = [i for kind in ("customers", "invoices", "products") for i in rows[kind]] or ["x"]
    path = template
    while "{" in path:
        start, end = path.index("{"), path.index("}")
        path = (
            path[:start]
            + quote(names[data.draw(st.integers(0, 999)) % len(names)], safe="")
            + path[end + 1 :]
        )
    sent = data.draw(structure_strategy(sdk.params_of(operation.endpoint)))
    if "customer" in sent:
        sent["customer"] = next(iter(rows["customers"]))
    answer = send(embedded, method, path, "&".join(encode_form(sent)).encode())

    assert answer.status_code in (200, 400, 402, 404, 501), (answer.text, path, sent)


@settings(max_examples=100, deadline=None)
@given(form=st.binary(max_size=60))
def test_random_bytes_never_cause_a_500(embedded: Sandbox, form: bytes) -> None:
    """Bytes that are not a form, nor text."""
    assert send(embedded, "POST", "/v1/customers", form).status_code in (200, 400, 501)


@pytest.mark.parametrize(
    "form", [b"a" + b"[b]" * 5000 + b"=c", b"metadata[a]=1&metadata=2", b"[]=1", b"=="]
)
def test_malformed_nesting_is_rejected(embedded: Sandbox, form: bytes) -> None:
    """Deep nesting costs nothing."""
    assert send(embedded, "POST", "/v1/customers", form).status_code == 400
