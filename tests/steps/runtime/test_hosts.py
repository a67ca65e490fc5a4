"""Hosts that receive credentials."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from steps.data.fetch import fetch_all
from steps.runtime import hosts


def test_redirects_to_other_hosts_carry_no_netrc_entry(tmp_path, parquet_server, monkeypatch) -> None:
    port = urlsplit(parquet_server.url).port
    (tmp_path / "netrc").write_text("default login me password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    parquet_server.put("/y.parquet", b"PAR1")
    parquet_server.redirect("/x.parquet", f"http://localhost:{port}/y.parquet")
    fetch_all([f"{parquet_server.url}/x.parquet"], tmp_path / "data", allow_private_hosts=True)
    assert [seen.headers.get("authorization") for seen in parquet_server.seen][-1] is None


@pytest.mark.parametrize(
    "url", ["https://HuggingFace.co:443/d/x", "HTTPS://huggingface.co/d/x", "https://huggingface.co./d/x"]
)
def test_origins_are_compared_without_case_and_default_port(url: str) -> None:
    assert hosts.origin(url) == hosts.origin("https://huggingface.co/other")
    assert hosts.origin(url) != hosts.origin("http://huggingface.co/other")
    assert hosts.origin(url) != hosts.origin("https://huggingface.co:444/other")
