"""The values of a signed URL's query are in no output, record, message or provenance of the steps that use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import ScriptedServer, response

from steps.data import fetch
from steps.data.locations.location import InvalidLocation, parse
from steps.preflight import data_checks
from steps.runtime import termination
from steps.runtime.errors import StepError
from steps.runtime.redaction import redact
from steps.runtime.shown_url import shown

SECRET = "hushhushhush"
NAMES = st.sampled_from(["sig", "X-Amz-Signature", "token", "se", "sv", "x", "", "a%20b", "[", "é", "Policy"])
PATHS = st.sampled_from(["a.parquet", "", "d/é.parquet", "%zz", "a;b", "a b.parquet", "[x]", "a.parquet#sha256=12"])
HOSTS = st.sampled_from(
    ["data.example", "127.0.0.1:1", "[::1]:2", "user:pw@data.example", "x:99999", "[", "DATA.example."]
)
SCHEMES = st.sampled_from(["https://", "http://", "HTTPS://", "s3://", "hf://datasets/", "ftp://", "//", ""])
PAIRS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "&".join(f"{name}={SECRET}" for name in names))


@settings(max_examples=300)
@given(SCHEMES, HOSTS, PATHS, PAIRS)
def test_no_text_about_a_url_has_a_value_of_its_query(scheme: str, host: str, path: str, query: str) -> None:
    url = f"{scheme}{host}/{path.partition('#')[0]}?{query}"
    assert SECRET not in shown(url)
    try:
        location, _ = parse(url)
        assert SECRET not in shown(getattr(location, "url", "")), url
    except InvalidLocation as error:
        assert SECRET not in f"{error} {error.fix}", url
    if "://" in url:
        assert SECRET not in json.dumps(redact({"urls": [url]})), url
        assert SECRET not in termination.format_text(f"{url} failed", url), url
    if "://" in url and " " not in url:  # in running text, a space ends a URL
        assert SECRET not in termination.format_text(f"cannot read {url}: no", f"open {url}"), url


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "403 Forbidden", "416 Range", "302 Found"])
def test_no_output_of_a_download_has_a_value(status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    redirect = {"Location": f"http://127.0.0.1:1/x?sig={SECRET}"} if status.startswith("302") else {}
    with ScriptedServer(lambda *_: response(b"rows", status, redirect)) as server:
        url = f"{server.url}/a.parquet?sig={SECRET}&x={SECRET}"
        messages = []
        for action in (
            lambda: fetch.fetch_all([url], tmp_path / "raw", allow_private_hosts=True, wait=lambda seconds: None),
            lambda: fetch.fetch_all([url, url], tmp_path / "raw", allow_private_hosts=True),
            lambda: list(data_checks.check_urls([url], allow_private=True, wait=lambda seconds: None)),
        ):
            try:
                messages.append(str(action()))
            except StepError as error:
                messages.append(f"{error.message} {error.fix}")
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    names = " ".join(str(path) for path in tmp_path.rglob("*"))
    assert SECRET not in "".join([*messages, written, names, *capsys.readouterr()])
