"""Hosts that a download must not reach: by URL, by redirect, and by a name that resolves differently later."""

from __future__ import annotations

import random
import socket

import pytest

from steps.data.fetch import fetch_all
from steps.runtime import addresses
from steps.runtime.errors import BadInput

BODY = random.Random(7).randbytes(3_000)

PRIVATE_4 = ["127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "0.0.0.0", "224.0.0.1", "2130706433", "0x7f.1"]
PRIVATE_6 = ["[::1]", "[::ffff:10.0.0.1]", "[fec0::1]", "[::127.0.0.1]"]
FORBIDDEN = ["169.254.169.254", "168.63.129.16", "100.100.100.200", "[fe80::1]", "metadata.google.internal"]


@pytest.mark.parametrize("host", [*PRIVATE_4, *PRIVATE_6])
def test_private_hosts_are_rejected(tmp_path, host: str) -> None:
    with pytest.raises(BadInput, match="loopback, private, link-local or metadata"):
        fetch_all([f"http://{host}/x.parquet"], tmp_path)


@pytest.mark.parametrize("host", FORBIDDEN)
def test_metadata_services_are_rejected_even_if_private_hosts_are_allowed(tmp_path, parquet_server, host: str) -> None:
    redirect = parquet_server.redirect("/x.parquet", f"http://{host}/secret")
    for url in (f"http://{host}/x.parquet", redirect):
        with pytest.raises(BadInput, match="metadata"):
            fetch_all([url], tmp_path, allow_private_hosts=True)


def test_redirect_to_a_private_host_is_rejected(tmp_path, parquet_server, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet_server.put("/secret", BODY)
    url = parquet_server.redirect("/x.parquet", f"http://127.0.0.2:{parquet_server.port}/secret")
    monkeypatch.setattr(addresses, "is_public", lambda address: str(address) == "127.0.0.1")
    with pytest.raises(BadInput, match=r"a redirect leads to 127\.0\.0\.2 is a loopback"):
        fetch_all([url], tmp_path)
    assert [seen.path for seen in parquet_server.seen] == ["/x.parquet"]


def test_dns_rebinding_to_a_private_host_is_rejected(tmp_path, parquet_server, monkeypatch) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    resolve = socket.getaddrinfo
    answers = iter(["8.8.8.8", "127.0.0.1"])

    def rebinding(host: str, port: int, *rest: object, **named: object):
        return resolve(next(answers), port, *rest, **named) if host == "rebind.example" else resolve(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(BadInput, match=r"rebind\.example \(127\.0\.0\.1\)"):
        fetch_all([url.replace("127.0.0.1", "rebind.example")], tmp_path)
    assert not parquet_server.seen


def test_dns_rebinding_to_a_metadata_service_is_rejected(tmp_path, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(addresses, "METADATA_ADDRESSES", {"127.0.0.1"})
        answers = iter(["8.8.8.8", "127.0.0.1"])
        resolve = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda _host, port, *rest, **kw: resolve(next(answers), port, *rest, **kw)
        )
        with pytest.raises(BadInput, match=r"rebind\.example \(127\.0\.0\.1\) is a link-local or metadata address"):
            fetch_all([f"http://rebind.example:{listener.getsockname()[1]}/x"], tmp_path, allow_private_hosts=True)
