"""Datasets of the hub: revisions, configs and splits, access, kills, and what the manifest records."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataset_hub import DatasetHub
from object_stores import SlowProxy
from slow_downloads import kill_mid_transfer

from steps.data.fetch import fetch_all
from steps.download.settings import Settings
from steps.download.step import download
from steps.preflight import data_checks
from steps.runtime import speed
from steps.runtime.errors import BadInput
from steps.runtime.speed import MinSpeed

ROOT = "hf://datasets/org/rows"
BODY = random.Random(7).randbytes(12_000_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetHub]:
    running = DatasetHub()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield running
    running.stop()


def get(folder: Path, *urls: str) -> dict[str, bytes]:
    files = fetch_all(urls, folder, allow_private_hosts=True, wait=lambda _: None)
    return {file.url: file.path.read_bytes() for file in files}


def names(folder: Path, url: str) -> list[str]:
    """Return the paths that a location gives, without the commit."""
    return [shown.partition("@")[2].partition("/")[2] for shown in get(folder, url)]


def contents(*paths: str) -> dict[str, bytes]:
    return {path: path.encode() for path in paths}


TREE = ("README.md", "main/train.parquet", "main/deep/x y.parquet", "other/test.parquet", "_x/hidden.parquet", "a.bin")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("main/train.parquet", ["main/train.parquet"]),
        ("main", ["main/deep/x y.parquet", "main/train.parquet"]),
        ("main/", ["main/deep/x y.parquet", "main/train.parquet"]),
        ("*/*.parquet", ["main/train.parquet", "other/test.parquet"]),
        ("**/t*.parquet", ["main/train.parquet", "other/test.parquet"]),
    ],
)
def test_files_folders_and_patterns(tmp_path, hub: DatasetHub, path: str, found: list[str]) -> None:
    hub.commit(contents(*TREE))
    assert names(tmp_path, f"{ROOT}/{path}") == found


def test_revisions_are_pinned_and_recorded(tmp_path, hub: DatasetHub, as_parquet, chats) -> None:
    first = hub.commit({"train.parquet": as_parquet(messages=chats(10, "first"))})
    branch = hub.commit({"train.parquet": as_parquet(messages=chats(20, "branch"))}, "fe/x")
    hub.commit({"train.parquet": as_parquet(messages=chats(30, "main"))})
    for revision, commit, rows in ((first, first, 10), ("fe%2Fx", branch, 20), ("main", None, 30), ("", None, 30)):
        work = tmp_path / str(len(revision))
        url = f"{ROOT}@{revision}" if revision else ROOT
        result = download(Settings(work=work, urls=[url], allow_private_hosts=True))
        assert result.rows + result.eval_rows == rows
        [source] = json.loads((work / "dataset" / "manifest.json").read_text())["sources"]
        assert source["from"] == f"{ROOT}@{commit or hub.revisions['main'].commit}/train.parquet"


CARD = b"""---
configs:
- config_name: easy
  default: true
  data_files:
  - {split: train, path: easy/train-*.parquet}
  - {split: test, path: [easy/test.parquet]}
- config_name: hard
  data_dir: hard
- config_name: all
  data_files: "*/*.parquet"
license: mit
---
# Rows
"""


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["easy/train-1.parquet", "easy/train-2.parquet"]),
        ("?split=test", ["easy/test.parquet"]),
        ("?config=hard", ["hard/train.parquet"]),
        ("?config=hard&split=validation", ["hard/dev.parquet"]),
        ("?split=test&config=easy", ["easy/test.parquet"]),
    ],
)
def test_configs_of_the_card(tmp_path, hub: DatasetHub, query: str, found: list[str]) -> None:
    data = ("easy/train-1.parquet", "easy/train-2.parquet", "easy/test.parquet", "hard/train.parquet")
    hub.commit({**contents(*data, "hard/dev.parquet"), "README.md": CARD})
    assert names(tmp_path, f"{ROOT}{query}") == found


@pytest.mark.parametrize(
    ("paths", "query", "found"),
    [
        (["data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"], "", 0),
        (["data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"], "?split=test", 1),
        (["train/x.parquet", "test/x.parquet", "other.parquet"], "", 0),
        (["my-training_set.parquet", "my-eval.parquet"], "?split=test", 1),
        (["only.parquet"], "", 0),
        (["data/custom-00000-of-00001.parquet"], "", 0),
    ],
)
def test_splits_by_name(tmp_path, hub: DatasetHub, paths: list[str], query: str, found: int) -> None:
    hub.commit(contents(*paths))
    assert names(tmp_path, f"{ROOT}{query}") == [paths[found]]


def test_the_conversion_to_parquet(tmp_path, hub: DatasetHub) -> None:
    paths = (
        "main/train/0000.parquet",
        "main/train/0001.parquet",
        "main/test/0000.parquet",
        "x/partial-train/0.parquet",
    )
    hub.commit(contents(*paths), "refs/convert/parquet")
    root = f"{ROOT}@refs/convert/parquet"
    assert names(tmp_path, f"{root}?config=main") == list(paths[:2])
    assert names(tmp_path, f"{root}/main/test/*.parquet") == [paths[2]]
    with pytest.raises(BadInput, match="only the first part of split 'train'"):
        get(tmp_path, f"{root}?config=x")
    with pytest.raises(BadInput, match="several configs"):
        get(tmp_path, root)


@pytest.mark.parametrize(
    ("url", "message", "fix"),
    [
        (f"{ROOT}?config=none", "has no config 'none'", "easy, hard"),
        (f"{ROOT}?split=none", "has no split 'none'", "test, train"),
        (f"{ROOT}/none.parquet", "404", "correct"),
        (f"{ROOT}/none/*.parquet", "404", "correct"),
        (f"{ROOT}@none", "404", "correct"),
        ("hf://datasets/org/other", "401", "HF_TOKEN"),
    ],
)
def test_what_is_missing_is_the_users_error(tmp_path, hub: DatasetHub, url: str, message: str, fix: str) -> None:
    hub.commit({**contents("easy/train-1.parquet", "easy/test.parquet"), "README.md": CARD})
    with pytest.raises(BadInput, match=message) as raised:
        get(tmp_path, url)
    assert fix in raised.value.fix


def test_private_datasets_need_the_token(tmp_path, monkeypatch, capfd) -> None:
    private = DatasetHub(token="hf_hush")
    try:
        monkeypatch.setenv("HF_ENDPOINT", private.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        private.commit(contents("train.parquet"))
        with pytest.raises(BadInput, match="401"):
            get(tmp_path, ROOT)
        monkeypatch.setenv("HF_TOKEN", "hf_hush")
        assert names(tmp_path, ROOT) == ["train.parquet"]
        written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
        assert "hf_hush" not in written + "".join(capfd.readouterr())
    finally:
        private.stop()


def test_a_killed_download_resumes_by_range(tmp_path, hub: DatasetHub, monkeypatch, capfd) -> None:
    commit = hub.commit({"train.parquet": BODY})
    with SlowProxy(hub.port, budget=8_000_000) as proxy:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{proxy.port}")
        kill_mid_transfer(proxy, ROOT, tmp_path)
        [partial] = tmp_path.glob("*.partial")
        have = partial.stat().st_size
        assert 0 < have < len(BODY)
        proxy.release()
        assert get(tmp_path, ROOT) == {f"{ROOT}@{commit}/train.parquet": BODY}
        assert proxy.sent < len(BODY) - have + 100_000


def test_a_stalled_transfer_resumes(tmp_path, hub: DatasetHub, monkeypatch) -> None:
    monkeypatch.setattr(speed, "MIN_SPEED", MinSpeed(100_000, 0.5))
    hub.commit({"train.parquet": BODY})
    with SlowProxy(hub.port, budget=8_000_000, trickle=True) as proxy:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{proxy.port}")
        waits: list[float] = []

        def release(seconds: float) -> None:
            waits.append(seconds)
            proxy.release()

        [file] = fetch_all([ROOT], tmp_path, allow_private_hosts=True, wait=release)
        assert file.path.read_bytes() == BODY and waits


def test_the_hub_passes_the_guard_of_addresses(tmp_path, hub: DatasetHub, monkeypatch) -> None:
    with pytest.raises(BadInput, match="loopback, private"):
        fetch_all([ROOT], tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://169.254.169.254")
    with pytest.raises(BadInput, match="link-local or metadata"):
        fetch_all([ROOT], tmp_path, allow_private_hosts=True)


def test_preflight_lists_and_reads(hub: DatasetHub, as_parquet, chats) -> None:
    hub.commit({"train.parquet": as_parquet(messages=chats(20)), "test.parquet": b"PAR1"})
    good, missing = data_checks.check_urls([ROOT, f"{ROOT}@none"], allow_private=True, wait=lambda _: None)
    assert good == f"{ROOT}@main has 1 data file (parquet), which can be read"
    assert isinstance(missing, BadInput) and "404" in missing.message
