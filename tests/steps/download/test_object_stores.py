"""Downloads from real servers of S3, Google Cloud Storage and Azure: selection, kills, stalls, changes, access."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_stores import AZURITE_KEY, SERVERS, ObjectStore, SlowProxy
from slow_downloads import kill_mid_transfer

from steps.data import transfer
from steps.data.fetch import fetch_all
from steps.data.locations import object_reader, object_store
from steps.download.settings import Settings
from steps.download.step import download
from steps.preflight import data_checks
from steps.runtime import hosts, speed
from steps.runtime.errors import BadInput, StepError
from steps.runtime.retry import RetryPolicy
from steps.runtime.speed import MinSpeed

BODY = random.Random(7).randbytes(16_000_000)


# What does not differ between stores is tested with one of them.
one_store = pytest.mark.parametrize("store", ["s3"], indirect=True)
slow_stores = [pytest.param(scheme, marks=pytest.mark.slow) for scheme in ("gs", "az")]
one_store_quickly = pytest.mark.parametrize("store", ["s3", *slow_stores], indirect=True)


@pytest.fixture(scope="module", params=SERVERS)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    with SERVERS[request.param]() as running:
        yield running


@pytest.fixture
def reachable(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The store, at the endpoint of the environment."""
    set_endpoint(store, store.port, monkeypatch)
    return store


def set_endpoint(store: ObjectStore, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.environment(port).items():
        monkeypatch.setenv(name, value)


def get(folder: Path, *urls: str) -> dict[str, bytes]:
    files = fetch_all(urls, folder, allow_private_hosts=True, wait=lambda _: None)
    assert not list(folder.glob("*.partial"))
    return {file.url: file.path.read_bytes() for file in files}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("select/a.parquet", ["a.parquet"]),
        ("select", ["a.parquet", "sub/b b.parquet"]),
        ("select/**/*.parquet", ["a.parquet", "sub/b b.parquet"]),
        ("sel*/{sub,other}/[a-c]*", ["sub/b b.parquet"]),
    ],
)
def test_files_folders_and_patterns(tmp_path, reachable: ObjectStore, path: str, names: list[str]) -> None:
    for name in ("a.parquet", "sub/b b.parquet", "_temporary/0/c.parquet", "notes.txt"):
        reachable.put(f"select/{name}", name.encode())
    root = f"{reachable.scheme}://rows"
    assert get(tmp_path, f"{root}/{path}") == {f"{root}/select/{name}": name.encode() for name in names}


def test_only_live_files_of_a_delta_table_are_read(tmp_path, reachable: ObjectStore) -> None:
    for name in ("part-0.parquet", "part-1.parquet", "part-2.parquet"):
        reachable.put(f"delta/{name}", name.encode())
    commits = [
        [{"add": {"path": "part-0.parquet"}}, {"add": {"path": "part-1.parquet"}}],
        [{"remove": {"path": "part-0.parquet"}}, {"add": {"path": "part-2.parquet"}}],
    ]
    for version, actions in enumerate(commits):
        log = "\n".join(json.dumps(action) for action in actions).encode()
        reachable.put(f"delta/_delta_log/{version:020}.json", log)
    url = f"{reachable.scheme}://rows/delta"
    assert get(tmp_path, url) == {f"{url}/{name}": name.encode() for name in ("part-1.parquet", "part-2.parquet")}


def test_the_manifest_names_the_objects(tmp_path, reachable: ObjectStore, as_parquet, chats, capfd) -> None:
    for name in ("1", "2"):
        reachable.put(f"data/{name}.parquet", as_parquet(messages=chats(20, name)))
    url = f"{reachable.scheme}://rows/data"
    settings = Settings(work=tmp_path, urls=[url], allow_private_hosts=True, weights={"2.parquet": 2})
    assert download(settings).eval_rows == 4
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert [source["from"] for source in manifest["sources"]] == [f"{url}/1.parquet", f"{url}/2.parquet"]
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for secret in ("hush-s3", AZURITE_KEY):
        assert secret not in written + "".join(capfd.readouterr())


def test_a_killed_download_resumes_by_range(tmp_path, store: ObjectStore, monkeypatch, capfd) -> None:
    url = store.put("killed.parquet", BODY)
    with SlowProxy(store.port, budget=10_000_000) as proxy:
        set_endpoint(store, proxy.port, monkeypatch)
        kill_mid_transfer(proxy, url, tmp_path)
        [partial] = tmp_path.glob("*.partial")
        have = partial.stat().st_size
        assert 0 < have < len(BODY)
        proxy.release()
        assert get(tmp_path, url) == {url: BODY}
        assert f"resumed at {transfer._megabytes(have)}" in capfd.readouterr().out
        # pyarrow's client of Google Cloud Storage begins a download of the whole file besides.
        assert proxy.sent < len(BODY) - have + 100_000 or store.scheme == "gs"


@one_store_quickly
def test_an_object_that_was_replaced_is_fetched_anew(tmp_path, store: ObjectStore, monkeypatch) -> None:
    url = store.put("replaced.parquet", BODY)
    with SlowProxy(store.port, budget=10_000_000) as proxy:
        set_endpoint(store, proxy.port, monkeypatch)
        kill_mid_transfer(proxy, url, tmp_path)
        assert list(tmp_path.glob("*.partial"))
        store.put("replaced.parquet", BODY[::-1])
        proxy.release()
        assert get(tmp_path, url) == {url: BODY[::-1]}


@one_store_quickly
def test_a_stalled_transfer_resumes(tmp_path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MIN_SPEED", MinSpeed(1000, 1.0))
    url = store.put("stalled.parquet", BODY)
    with SlowProxy(store.port, budget=10_000_000) as proxy:
        set_endpoint(store, proxy.port, monkeypatch)
        messages: list[float] = []

        def release(seconds: float) -> None:
            messages.append(seconds)
            proxy.release()

        [file] = fetch_all([url], tmp_path, allow_private_hosts=True, wait=release)
        assert file.path.read_bytes() == BODY and messages


@pytest.mark.slow
def test_a_server_of_a_byte_at_a_time_is_given_up(tmp_path, store: ObjectStore, monkeypatch) -> None:
    monkeypatch.setattr(speed, "MIN_SPEED", MinSpeed(100_000, 0.5))
    monkeypatch.setattr(object_store, "RESPONSE_SECONDS", 5.0)
    monkeypatch.setattr(transfer, "RETRY", RetryPolicy(max_attempts=2))
    url = store.put("slow.parquet", BODY)
    with SlowProxy(store.port, budget=1_000_000, trickle=True) as proxy:
        set_endpoint(store, proxy.port, monkeypatch)
        with pytest.raises(StepError, match=r"stalled: |timed out") as raised:
            get(tmp_path, url)
        assert raised.value.exit_code == 1


def test_what_is_missing_is_the_users_error(tmp_path, reachable: ObjectStore) -> None:
    for path in ("rows/none.parquet", "rows/none/*.parquet", "nowhere/x.parquet"):
        with pytest.raises(BadInput, match="not found"):
            get(tmp_path, f"{reachable.scheme}://{path}")


@one_store
def test_all_errors_are_reported_together(tmp_path, reachable: ObjectStore) -> None:
    urls = [f"{reachable.scheme}://rows/none-{number}" for number in range(3)]
    with pytest.raises(BadInput) as raised:
        get(tmp_path, *urls)
    assert all(url in raised.value.message for url in urls)


@one_store
def test_a_checksum_is_verified(tmp_path, reachable: ObjectStore) -> None:
    url = reachable.put("checked.parquet", b"rows")
    with pytest.raises(BadInput, match="expected sha256:0000"):
        get(tmp_path, f"{url}#sha256={'0' * 64}")


def test_endpoints_pass_the_guard_of_addresses(tmp_path, store: ObjectStore, monkeypatch) -> None:
    url = store.put("guarded.parquet", b"rows")
    set_endpoint(store, store.port, monkeypatch)
    with pytest.raises(BadInput, match=r"127\.0\.0\.1 is a loopback, private"):
        fetch_all([url], tmp_path)
    for name, value in store.environment(80).items():
        monkeypatch.setenv(name, value.replace("127.0.0.1", "169.254.169.254"))
    with pytest.raises(BadInput, match=r"169\.254\.169\.254 is a link-local or metadata address"):
        fetch_all([url], tmp_path, allow_private_hosts=True)


def test_addresses_are_checked_when_connections_are_made(tmp_path, store: ObjectStore, monkeypatch) -> None:
    """The host's name resolves to a public address when it is checked, and to a private one afterwards."""
    url = store.put("rebound/a.jsonl", b"{}")
    set_endpoint(store, store.port, monkeypatch)
    monkeypatch.setattr(hosts, "check", lambda url, *, allow_private: None)
    with pytest.raises(BadInput, match=r"127\.0\.0\.1 is a loopback, private, link-local or metadata address"):
        fetch_all([url], tmp_path)


@one_store
def test_overlapping_locations_are_rejected(tmp_path, reachable: ObjectStore) -> None:
    url = reachable.put("overlap/x.parquet", b"rows")
    with pytest.raises(BadInput, match=r"several locations name .*overlap/x\.parquet"):
        get(tmp_path, url, f"{reachable.scheme}://rows/overlap")


def test_wrong_keys_are_the_users_error(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SERVERS["az"]() as azurite:
        url = azurite.put("x.parquet", b"rows")
        set_endpoint(azurite, azurite.port, monkeypatch)
        wrong = os.environ["AZURE_STORAGE_CONNECTION_STRING"].replace(AZURITE_KEY, "d3Jvbmc=")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
        with pytest.raises(BadInput, match="no access") as raised:
            get(tmp_path, url)
        assert "Storage Blob Data Reader" in raised.value.fix and "d3Jvbmc" not in str(raised.value)


def test_a_wrong_signature_is_not_shown(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SERVERS["az"]() as azurite:
        url = azurite.put("x.parquet", b"rows")
        set_endpoint(azurite, azurite.port, monkeypatch)
        parts = os.environ["AZURE_STORAGE_CONNECTION_STRING"].split(";AccountKey=")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"{parts[0]};{parts[1].partition(';')[2]}")
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2024-01-01&se=2030-01-01&sig=aHVzaA%3D%3D")
        with pytest.raises(BadInput, match="no access") as raised:
            get(tmp_path, url)
        assert "aHVzaA" not in str(raised.value)


def test_blocks_grow_and_shrink_with_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 0.1, 1.0, 1.1, 2.0, 9.0, 10.0, 10.1])
    monkeypatch.setattr(object_reader.time, "monotonic", lambda: next(seconds, 11.0))
    sizes: list[int] = []

    def read_at(count: int, _: int) -> bytes:
        sizes.append(count)
        return bytes(count)

    list(object_reader._blocks(read_at, 0, object_reader.MIN_BLOCK * 9))
    assert [size // object_reader.MIN_BLOCK for size in sizes] == [1, 2, 4, 2]


def test_preflight_lists_and_reads(reachable: ObjectStore, as_parquet, chats) -> None:
    for name in ("1", "2"):
        reachable.put(f"checked/{name}.parquet", as_parquet(messages=chats(20, name)))
    reachable.put("broken/x.parquet", b"<html>no</html>")
    root = f"{reachable.scheme}://rows"
    urls = [f"{root}/checked", f"{root}/broken/x.parquet", f"{root}/none"]
    good, broken, missing = data_checks.check_urls(urls, allow_private=True, wait=lambda _: None)
    assert good == f"{root}/checked has 2 data files (parquet), which can be read"
    assert isinstance(broken, BadInput) and "x.parquet" in broken.message
    assert isinstance(missing, BadInput) and "not found" in missing.message
