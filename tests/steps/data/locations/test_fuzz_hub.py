"""Damaged answers of the model hub are read, or refused with a fix."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import fuzz
import pytest
from certificates import write_certificate
from mutations import mutate_bytes, mutate_document
from scripted_server import ScriptedServer, response

from steps.data import fetch
from steps.data.locations import hub
from steps.data.locations.location import HubLocation
from steps.models import model_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("README.md", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "test.jsonl")
TREE = [{"type": "file", "oid": "1", "size": 5, "path": name} for name in NAMES] + [{"type": "directory", "path": "d"}]
CARD = b"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - {split: test, path: [test.jsonl]}
dataset_info: {config_name: default, splits: [{name: train, num_examples: 5}]}
---
# Rows
"""
MODEL_TREE = [{"type": "file", "oid": "1" * 40, "size": 2, "path": "config.json"}]
Create = Callable[[random.Random], bytes]
READERS: dict[str, Create] = {
    "revision": lambda chance: mutate_document(chance, {"sha": COMMIT, "id": "org/rows", "private": False}),
    "tree": lambda chance: mutate_document(chance, TREE),
    "card": lambda chance: mutate_bytes(chance, CARD),
    "link": lambda chance: mutate_bytes(chance, b'<http://127.0.0.1:1/api?cursor=x>; rel="next", <>; rel=prev'),
    "head": lambda chance: mutate_bytes(chance, response(b"{}", headers={"ETag": "1", "Content-Range": "bytes 0-1"})),
    "model": lambda chance: mutate_document(chance, {"id": "org/m", "sha": COMMIT, "siblings": [{"rfilename": "a"}]}),
    "model tree": lambda chance: mutate_document(chance, MODEL_TREE),
}


class Hub:
    def __init__(self, kind: str) -> None:
        self.kind, self.damaged, self.files = kind, b"", 0

    def respond(self, method: str, target: str, headers: Mapping[str, str]) -> bytes:
        path, head = target.partition("?")[0], method == "HEAD"
        if self.kind == "head" and "/resolve/" in path:
            return self.damaged
        if "/tree/" in path:
            links = {"Link": self.damaged.decode("latin-1").replace("\n", "").replace("\r", "")}
            is_model = path.startswith("/api/models")
            body = json.dumps(MODEL_TREE if is_model else TREE).encode()
            kind = "model tree" if is_model else "tree"
            return response(
                self.damaged if self.kind == kind else body, headers=links if self.kind == "link" else {}, head=head
            )
        if "/revision/" in path or path.startswith("/api/models/"):
            kind = "model" if path.startswith("/api/models") else "revision"
            body = json.dumps({"sha": COMMIT, "id": "org/m", "siblings": []}).encode()
            return response(self.damaged if self.kind == kind else body, head=head)
        self.files += 1
        content = CARD if path.endswith("README.md") else b"{}"
        found = {"ETag": '"1"', "X-Repo-Commit": COMMIT}
        return response(self.damaged if self.kind == "card" else content, headers=found, head=head)


def run(tmp_path: Path, kind: str, count: int) -> None:
    script = Hub(kind)
    with ScriptedServer(script.respond) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(hub, "MAX_PAGES", 5)

        def read(damaged: bytes) -> None:
            script.damaged = damaged
            if kind == "head":
                url = f"{server.url}/datasets/org/rows/resolve/main/a.parquet"
                fetch.fetch_all([url], tmp_path / "raw", allow_private_hosts=True, wait=lambda seconds: None)
                return
            location = hub.pin(HubLocation("org/rows", "main", ""), True)
            hub.list_files(location, True)

        if kind.startswith("model"):
            read = _model_reader(script, server.url, patch, tmp_path)
        fuzz.check(f"hub {kind}", read, READERS[kind], count, refusals=(model_hub.HubUnreachable,), min_refused=0)
        assert script.files or kind == "head", "no file was requested from this server"


def _model_reader(script: Hub, url: str, patch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], None]:
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "ENDPOINT", url)
    # The library reads all certificates of the system for each client; the server of this test has none.
    patch.setenv("SSL_CERT_FILE", str(write_certificate(tmp_path).certificate))
    patch.setattr(time, "sleep", lambda seconds: None)  # the library's retries
    patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def read(damaged: bytes) -> None:
        script.damaged = damaged
        model_hub.fetch("org/m", "main", whole=False, wait=lambda seconds: None)

    return read


@pytest.mark.parametrize(
    ("kind", "count"), fuzz.cases(READERS, lambda kind: 4 if kind.startswith("model") else 20, parts=len(READERS))
)
def test_damaged_answers_are_refused(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)
