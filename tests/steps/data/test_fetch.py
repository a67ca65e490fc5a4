"""Downloads against a real server with faults; without real waits between attempts."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from certificates import write_certificate
from parquet_server import Fault, ParquetServer
from scripted_server import ScriptedServer, response

from steps.data import transfer
from steps.data.fetch import delete_downloads, fetch_all
from steps.data.locations import http_file
from steps.runtime import hosts, unpacked_size
from steps.runtime.errors import BadInput, StepError

BODY = random.Random(7).randbytes(3_000_000)


class Waits(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return Waits()


def get(folder: Path, *urls: str, wait: Waits | None = None) -> list[bytes]:
    fetched = fetch_all(urls, folder, allow_private_hosts=True, wait=Waits() if wait is None else wait)
    for file in fetched:
        assert file.sha256 == "sha256:" + hashlib.sha256(file.path.read_bytes()).hexdigest()
        assert file.size == file.path.stat().st_size
    assert not list(folder.glob("*.partial"))
    return [file.path.read_bytes() for file in fetched]


def test_files_of_equal_names_are_downloaded_in_order(tmp_path, parquet_server: ParquetServer) -> None:
    bodies = [random.Random(i).randbytes(1000 + i) for i in range(12)]
    urls = [parquet_server.put(f"/{i % 3}/data.parquet?download=true&part={i}", b) for i, b in enumerate(bodies)]
    assert get(tmp_path, *urls) == bodies
    assert all(path.name.endswith(("-data.parquet", ".state.json")) for path in tmp_path.iterdir())


def test_redirects_are_followed(tmp_path, parquet_server: ParquetServer) -> None:
    parquet_server.put("/store/x.parquet?sig=1", BODY)
    parquet_server.redirect("/c", "/store/x.parquet?sig=1")
    parquet_server.redirect("/b", f"{parquet_server.url}/c")
    assert get(tmp_path, parquet_server.redirect("/a.parquet?download=true", "b")) == [BODY]


def test_an_encoded_body_that_unpacks_to_too_much_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked_size, "MIN_UNPACKED_BYTES", 1_000_000)
    bodies = {"/text": BODY, "/bomb": bytes(3_000_000)}

    def respond(method: str, target: str, headers: Mapping[str, str]) -> bytes:
        return response(gzip.compress(bodies[target]), headers={"Content-Encoding": "gzip"})

    with ScriptedServer(respond) as server:
        assert get(tmp_path, f"{server.url}/text") == [BODY]
        with pytest.raises(BadInput, match="/bomb: the body unpacks to more than 200 times its size"):
            get(tmp_path, f"{server.url}/bomb")
    assert sum(path.stat().st_size for path in tmp_path.glob("*bomb*")) < 2_000_000


def test_redirect_loop_fails(tmp_path, parquet_server: ParquetServer) -> None:
    with pytest.raises(BadInput, match="more than 10 redirects"):
        get(tmp_path, parquet_server.redirect("/a", "/a"))
    assert len(parquet_server.seen) == 11


def test_finished_file_is_reused_unless_damaged(tmp_path, parquet_server) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    assert get(tmp_path, url) == get(tmp_path, url) == [BODY]
    assert len(parquet_server.seen) == 1
    (file,) = tmp_path.glob("*-x.parquet")
    file.write_bytes(BODY[:-1] + b"!")
    assert get(tmp_path, url) == [BODY]
    assert len(parquet_server.seen) == 2
    delete_downloads([file])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", [Fault(reset_after=1_000_000), Fault(cut_after=1_000_000)], ids=["reset", "cut"])
def test_broken_connection_is_resumed(tmp_path, parquet_server: ParquetServer, waits: Waits, fault: Fault) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.faults["/x.parquet"].append(fault)
    assert get(tmp_path, url, wait=waits) == [BODY]
    _, second = parquet_server.requests_for("/x.parquet")
    resumed_at = int(second.headers["range"].removeprefix("bytes=").rstrip("-"))
    # A reset may throw away what lay in the socket; a clean end may not.
    assert 0 < resumed_at <= 1_000_000 and (fault.reset_after > 0 or resumed_at == 1_000_000)
    assert second.headers["if-range"] == parquet_server.files["/x.parquet"].etag
    assert second.sent == len(BODY) - resumed_at
    assert waits == [1.0]


def test_last_modified_is_used_without_a_strong_etag(tmp_path, parquet_server: ParquetServer) -> None:
    date = "Tue, 24 Nov 2026 10:00:00 GMT"
    url = parquet_server.put("/x.parquet", BODY, etag='W/"weak"', last_modified=date)
    parquet_server.faults["/x.parquet"].append(Fault(cut_after=500_000))
    assert get(tmp_path, url) == [BODY]
    assert parquet_server.requests_for("/x.parquet")[1].headers["if-range"] == date


def test_download_restarts_without_a_validator(tmp_path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/x.parquet", BODY, etag="")
    parquet_server.faults["/x.parquet"].append(Fault(cut_after=500_000))
    assert get(tmp_path, url) == [BODY]
    assert "range" not in parquet_server.requests_for("/x.parquet")[1].headers


def test_download_restarts_if_ranges_are_ignored(tmp_path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.faults["/x.parquet"] += [Fault(cut_after=500_000), Fault(ignores_range=True)]
    assert get(tmp_path, url) == [BODY]
    assert parquet_server.sent("/x.parquet") == 500_000 + len(BODY)


@pytest.mark.parametrize("honest", [True, False], ids=["If-Range honoured", "If-Range ignored"])
def test_file_that_changes_between_attempts_is_not_mixed(
    tmp_path, parquet_server: ParquetServer, honest: bool
) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.faults["/x.parquet"].append(Fault(cut_after=500_000))
    if not honest:
        parquet_server.faults["/x.parquet"].append(Fault(ignores_if_range=True))
    newer = BODY[::-1]

    def change(_: float) -> None:
        parquet_server.put("/x.parquet", newer)

    (file,) = fetch_all([url], tmp_path, allow_private_hosts=True, wait=change)
    assert file.path.read_bytes() == newer


def test_download_restarts_if_the_file_shrank(tmp_path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/x.parquet", BODY, etag='"same"')
    parquet_server.faults["/x.parquet"].append(Fault(cut_after=500_000))

    def shrink(_: float) -> None:
        parquet_server.put("/x.parquet", BODY[:1000], etag='"same"')

    (file,) = fetch_all([url], tmp_path, allow_private_hosts=True, wait=shrink)
    assert file.path.read_bytes() == BODY[:1000]


def test_killed_between_the_last_byte_and_the_rename(tmp_path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    get(tmp_path, url)
    (file,) = tmp_path.glob("*-x.parquet")
    partial = file.with_name(file.name + ".partial")
    file.rename(partial)
    assert get(tmp_path, url) == [BODY]
    assert parquet_server.sent("/x.parquet") == len(BODY)
    # And before the digest was recorded: the server reports that nothing is missing.
    file.rename(partial)
    state = transfer.state_path(file)
    state.write_text(state.read_text().replace(hashlib.sha256(BODY).hexdigest(), "").replace('"sha256:"', '""'))
    assert get(tmp_path, url) == [BODY]
    assert parquet_server.sent("/x.parquet") == len(BODY)


def test_busy_server_is_retried_with_its_delay_or_backoff(tmp_path, parquet_server, waits) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.faults["/x.parquet"] += [
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(status=503, headers={"Retry-After": "7"}),
        Fault(status=500),
        Fault(status=502, headers={"Retry-After": "soon"}),
    ]
    assert get(tmp_path, url, wait=waits) == [BODY]
    assert waits == [0, 7, 4.0, 8.0]


def test_server_that_stays_busy_fails_the_download(tmp_path, parquet_server: ParquetServer, waits: Waits) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.always["/x.parquet"] = Fault(status=500)
    with pytest.raises(StepError, match="500 Internal Server Error; 5 consecutive attempts") as raised:
        get(tmp_path, url, wait=waits)
    assert raised.value.exit_code == 1 and waits == [1, 2, 4, 8]


def test_too_long_a_wait_is_left_to_the_next_attempt_of_the_step(
    tmp_path, parquet_server: ParquetServer, waits
) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.faults["/x.parquet"].append(Fault(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(StepError, match="requests a wait of 3600 s"):
        get(tmp_path, url, wait=waits)
    assert not waits


def test_silent_server_is_resumed(tmp_path, parquet_server: ParquetServer, monkeypatch) -> None:
    monkeypatch.setattr(http_file, "TIMEOUTS", (30, 1))
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.faults["/x.parquet"].append(Fault(hold_after=500_000))
    assert get(tmp_path, url) == [BODY]
    assert parquet_server.sent("/x.parquet") == len(BODY)


def test_certificates_are_checked(tmp_path, parquet_server: ParquetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = write_certificate(tmp_path)
    parquet_server.use_tls(key, certificate)
    url = parquet_server.put("/x.parquet", BODY)
    with pytest.raises(BadInput, match="certificate is not trusted") as raised:
        get(tmp_path / "raw", url)
    assert "REQUESTS_CA_BUNDLE" in raised.value.fix
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert get(tmp_path / "raw", url) == [BODY]


def test_attempts_are_counted_only_without_progress(tmp_path, parquet_server: ParquetServer, waits: Waits) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.faults["/x.parquet"] += [Fault(cut_after=200_000)] * 9
    assert get(tmp_path, url, wait=waits) == [BODY]
    assert waits == [1.0] * 9


def test_transfer_of_unknown_length(tmp_path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    parquet_server.faults["/x.parquet"].append(Fault(headers={"Content-Length": "", "Connection": "close"}))
    assert get(tmp_path, url) == [BODY]


def test_checksum_of_the_url_is_verified(tmp_path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    digest = hashlib.sha256(BODY).hexdigest()
    assert get(tmp_path, f"{url}#sha256={digest.upper()}") == [BODY]
    with pytest.raises(BadInput, match=f"digest is sha256:{digest}, expected sha256:{'0' * 64}"):
        get(tmp_path, f"{url}#sha256={'0' * 64}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "told", "fix"),
    [(404, "404 Not Found", "browser"), (410, "410 Gone", "browser"), (401, "401", "signed"), (403, "403", "signed")],
)
def test_permanent_failures_are_bad_input(tmp_path, parquet_server: ParquetServer, status, told, fix) -> None:
    parquet_server.always["/x.parquet"] = Fault(status=status)
    with pytest.raises(BadInput, match=told) as raised:
        get(tmp_path, f"{parquet_server.url}/x.parquet")
    assert f"{parquet_server.url}/x.parquet" in raised.value.message and fix in raised.value.fix
    assert len(parquet_server.seen) == 1


def test_all_failures_are_reported_and_partial_files_are_kept(tmp_path, parquet_server: ParquetServer) -> None:
    urls = [
        parquet_server.put("/good.parquet", BODY * 4),
        f"{parquet_server.url}/gone.parquet",
        f"{parquet_server.url}/busy.parquet",
        f"{parquet_server.url}/forbidden.parquet",
    ]
    parquet_server.always["/busy.parquet"] = Fault(status=503, headers={"Retry-After": "0"})
    parquet_server.always["/forbidden.parquet"] = Fault(status=403)
    with pytest.raises(BadInput) as raised:
        get(tmp_path, *urls)
    assert "/gone.parquet: 404" in raised.value.message and "/forbidden.parquet: 403" in raised.value.message
    assert "good" not in raised.value.message
    assert {path.suffix for path in tmp_path.glob("*good.parquet*")} <= {".partial", ".json", ".parquet"}
    parquet_server.always.clear()
    already = parquet_server.sent("/good.parquet")
    assert get(tmp_path, urls[0]) == [BODY * 4]
    assert parquet_server.sent("/good.parquet") <= len(BODY * 4) + already


def test_refused_connection(tmp_path, waits: Waits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StepError, match="Connection refused") as raised:
        get(tmp_path, f"http://127.0.0.1:{port}/x.parquet?sig=hush", wait=waits)
    assert raised.value.exit_code == 1 and len(waits) == 4
    assert "hush" not in str(raised.value)


def test_unresolvable_host(tmp_path, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(StepError, match=r"data\.invalid.*resolve|does not resolve|not known") as raised:
        fetch_all(["https://data.invalid/x.parquet"], tmp_path, wait=waits)
    assert raised.value.exit_code == 1


def test_invalid_urls_are_reported_together_before_any_request(tmp_path, parquet_server: ParquetServer) -> None:
    good = parquet_server.put("/x.parquet", BODY)
    wrong = ["ftp://host/x", "https:///x", "http://h:70000/x", f"{good}#sha256=12", f"{good}#part", "/local", good]
    with pytest.raises(BadInput) as raised:
        fetch_all([good, *wrong], tmp_path / "raw")
    assert len(raised.value.message.splitlines()) == 1 + len(wrong)
    assert not parquet_server.seen and not (tmp_path / "raw").exists()


def test_token_is_sent_only_to_the_hub(tmp_path, parquet_server, monkeypatch, capfd) -> None:
    parquet_server.put("/cdn/x.parquet", BODY)
    parquet_server.redirect("/resolve/x.parquet", "/lfs/x.parquet")
    parquet_server.redirect("/lfs/x.parquet", f"http://localhost:{parquet_server.port}/cdn/x.parquet")
    monkeypatch.setenv("HF_TOKEN", "hf_hush")
    monkeypatch.setenv("HF_ENDPOINT", parquet_server.url)
    assert get(tmp_path, f"{parquet_server.url}/resolve/x.parquet") == [BODY]
    assert [seen.headers.get("authorization") for seen in parquet_server.seen] == ["Bearer hf_hush"] * 2 + [None]
    monkeypatch.delenv("HF_ENDPOINT")
    parquet_server.seen.clear()
    get(tmp_path / "other", f"{parquet_server.url}/cdn/x.parquet")
    assert "authorization" not in parquet_server.seen[0].headers
    assert "hf_hush" not in "".join(capfd.readouterr())
    assert not any(b"hf_hush" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("url", "requested", "sees"),
    [
        ("https://huggingface.co/d/x", "https://huggingface.co/d/x", True),
        ("https://huggingface.co/d/x", "https://cdn-lfs.huggingface.co/x", False),
        ("http://huggingface.co/d/x", "http://huggingface.co/d/x", False),
        ("https://huggingface.co.evil.example/x", "https://huggingface.co.evil.example/x", False),
        ("https://evil.example/x", "https://huggingface.co/d/x", False),
    ],
)
def test_hosts_that_receive_the_token(monkeypatch, url: str, requested: str, sees: bool) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hush")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert bool(hosts.authentication(requested, url)) is sees


def test_rejection_by_the_hub_names_the_token(tmp_path, parquet_server, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", parquet_server.url)
    parquet_server.always["/x.parquet"] = Fault(status=401)
    for token, fix in (("", "set HF_TOKEN to a token with access"), ("hf_hush", "accept the terms")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(BadInput) as raised:
            get(tmp_path, f"{parquet_server.url}/x.parquet")
        assert fix in raised.value.fix and "hf_hush" not in str(raised.value)


def test_secrets_of_a_url_are_hidden(tmp_path, parquet_server: ParquetServer, capfd) -> None:
    path = "/x.parquet?sv=2024&sig=hush1&X-Amz-Security-Token=hush2"
    parquet_server.put(path, BODY)
    url = f"http://me:hush3@127.0.0.1:{parquet_server.port}{path}"
    (file,) = fetch_all([url], tmp_path, allow_private_hosts=True)
    assert file.url == f"{parquet_server.url}/x.parquet?sv=***&sig=***&X-Amz-Security-Token=***"
    assert parquet_server.seen[0].headers["authorization"].startswith("Basic ")
    everything = "".join(capfd.readouterr()) + "".join(p.name + repr(p.read_bytes()[:500]) for p in tmp_path.iterdir())
    assert "hush" not in everything


def test_full_disk_is_reported_and_leaves_no_partial_file(small_disk: Path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    with pytest.raises(BadInput, match=r"no space left on .*\(needs 3\.0 MB, 1\.0 MB free\)"):
        get(small_disk, url)
    # Without a length, the disk fills up while the bytes come.
    parquet_server.always["/x.parquet"] = Fault(headers={"Content-Length": "", "Connection": "close"})
    with pytest.raises(BadInput, match="no space left on"):
        get(small_disk, url)
    assert not list(small_disk.iterdir())


def test_other_file_errors_are_raised(tmp_path, parquet_server: ParquetServer) -> None:
    url = parquet_server.put("/x.parquet", BODY)
    get(tmp_path, url)
    (file,) = tmp_path.glob("*-x.parquet")
    delete_downloads([file])
    os.mkdir(file.with_name(file.name + ".partial"))
    with pytest.raises(OSError) as raised:
        get(tmp_path, url)
    assert raised.value.errno in (errno.EISDIR, errno.EPERM)


def test_progress_in_bytes(tmp_path, parquet_server: ParquetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "progress"))
    urls = [parquet_server.put(f"/{i}.parquet", BODY[: 1000 * (i + 1)]) for i in range(3)]
    get(tmp_path / "raw", *urls)
    assert (tmp_path / "progress").read_text() == "6000/6000\n"
