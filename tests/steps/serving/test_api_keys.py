from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from adapter_server import RunningServer
from app_server import listen
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import save_model

from steps.serving import api_keys
from steps.serving.api_key_check import ApiKeyCheck
from steps.serving.api_keys import ApiKeys, read_client_key, read_key_file
from steps.serving.middleware import ServingMiddleware
from steps.serving.serve_transformers import build_app, model_manager

ALICE, BOB = "alice-0123456789", "bob-0123456789abc"
CHAT = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}
CLOSED = (("GET", "/v1/models"), ("GET", "/adapters"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"),
          ("POST", "/chat"))  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Secret as the kubelet mounts it: links to a folder that is replaced as a whole."""
    mount_secret(tmp_path / "keys", alice=ALICE, bob=f"{BOB}\n")
    return tmp_path / "keys"


@pytest.fixture
def server(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    monkeypatch.setenv(api_keys.FOLDER_VARIABLE, str(folder))
    running = RunningServer(tmp_path / "adapters.json", tmp_path / "pulled")
    yield running
    running.close()


def mount_secret(folder: Path, **entries: str) -> None:
    folder.mkdir(exist_ok=True)
    version = folder / f"..version{len(list(folder.glob('..version*')))}"
    version.mkdir()
    for name, key in entries.items():
        (version / name).write_text(key)
    link = folder / "..data_tmp"
    link.symlink_to(version.name)
    os.replace(link, folder / "..data")
    for name in entries:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for path in folder.glob("[!.]*"):
        if path.name not in entries:
            path.unlink()


def request(server: RunningServer, method: str, path: str, key: str | None, **options: Any) -> requests.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return requests.request(method, server.address + path, headers=headers, timeout=120, **options)


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize("key", [None, "", "wrong-0123456789", f"{ALICE}x", ALICE[:-1], ALICE.upper(), "alice"])
def test_requests_without_a_valid_key_never_reach_the_server(
    server: RunningServer, method: str, path: str, key: str | None
) -> None:
    response = request(server, method, path, key, json=CHAT)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (401, "invalid_api_key", "invalid_request_error")
    assert response.headers["www-authenticate"].startswith('Bearer realm="argotune"')
    assert not key or key not in response.text
    assert server.server.calls == []


@pytest.mark.parametrize("key", [ALICE, BOB])
def test_every_key_of_the_secret_is_accepted(server: RunningServer, key: str) -> None:
    assert request(server, "POST", "/v1/chat/completions", key, json=CHAT).status_code == 200
    assert request(server, "POST", "/chat", key, json={"prompt": "Hello", "model": "base"}).json()["Result"]
    assert request(server, "GET", "/v1/models", key).json()["data"][0]["id"] == "base"
    assert request(server, "GET", "/adapters", key).status_code == 200


def test_probes_need_no_key(server: RunningServer) -> None:
    assert request(server, "GET", "/health", None).status_code == 200
    assert request(server, "GET", "/ready", None).status_code in (200, 503)
    assert request(server, "OPTIONS", "/v1/models", None).status_code != 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ALICE},
        {"Authorization": f"Basic {ALICE}"},
        {"X-Api-Key": ALICE},
        {"Cookie": f"Authorization=Bearer {ALICE}"},
    ],
)
def test_a_key_is_accepted_in_its_header_only(server: RunningServer, headers: dict[str, str]) -> None:
    assert requests.get(f"{server.address}/v1/models", headers=headers, timeout=120).status_code == 401
    assert requests.get(f"{server.address}/v1/models?api_key={ALICE}", timeout=120).status_code == 401


def test_keys_are_rotated_without_a_restart(server: RunningServer, folder: Path) -> None:
    carol = "carol-0123456789"
    assert request(server, "GET", "/v1/models", carol).status_code == 401
    mount_secret(folder, bob=BOB, carol=carol)
    assert [request(server, "GET", "/v1/models", key).status_code for key in (ALICE, BOB, carol)] == [401, 200, 200]
    mount_secret(folder, bob="changed-0123456789", carol=carol)
    assert [request(server, "GET", "/v1/models", key).status_code for key in (BOB, "changed-0123456789")] == [401, 200]


def test_a_removed_secret_rejects_everything(server: RunningServer, folder: Path) -> None:
    shutil.rmtree(folder)
    assert request(server, "GET", "/v1/models", ALICE).status_code == 401
    assert request(server, "GET", "/health", None).status_code == 200


def test_no_key_is_logged_or_kept(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = ApiKeys(folder)
    (folder / "short").write_text("0123456789")
    (folder / "empty").write_text("\n")
    (folder / "lines").write_text("0123456789012345\n0123456789012345")
    (folder / "long").write_text("x" * 5000)
    assert (keys.find(ALICE), keys.find(BOB), keys.find("0123456789"), keys.find("")) == ("alice", "bob", "", "")
    log = capfd.readouterr().out
    assert "API keys of" in log and "alice, bob" in log
    assert "short is ignored: it is shorter than 16 characters" in log and "empty is ignored: it is empty" in log
    assert "lines is ignored" in log and "long is ignored" in log
    assert ALICE not in log and "0123456789" not in log
    assert ALICE not in repr(vars(keys))


def test_the_key_is_not_passed_to_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    monkeypatch.setenv(api_keys.FOLDER_VARIABLE, str(folder))
    with listen(ApiKeyCheck(app)) as port:
        for own in ("", "internal"):
            monkeypatch.setenv("VLLM_API_KEY", own)
            url = f"http://127.0.0.1:{port}/v1/models"
            assert requests.get(url, headers={"Authorization": f"bearer  {ALICE} "}, timeout=120).status_code == 200
    values = [[value for name, value in headers if name == b"authorization"] for headers in seen]
    assert values == [[], [b"Bearer internal"]], "vLLM's own key, if it has one"


def test_the_transformers_server_needs_a_key_too(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(api_keys.FOLDER_VARIABLE, str(folder))
    app = ServingMiddleware(build_app(model_manager("tiny", save_model(tmp_path / "tiny"), "float32")))
    body = {"model": "tiny", "max_tokens": 1, "prompt": "x"}
    with listen(app) as port:
        url = f"http://127.0.0.1:{port}/v1/completions"
        assert requests.post(url, json=body, timeout=120).status_code == 401
        response = requests.post(url, json=body, headers={"Authorization": f"Bearer {BOB}"}, timeout=120)
        assert (response.status_code, response.json()["model"]) == (200, "tiny")


def test_a_client_reads_its_key_from_a_folder_or_file(folder: Path, tmp_path: Path) -> None:
    assert read_client_key(folder) == ALICE
    (folder / "argotune").write_text("own-0123456789abc\n")
    assert read_client_key(folder) == "own-0123456789abc", "the entry of the run's own steps"
    assert read_client_key(tmp_path / "nothing") == read_client_key("") == ""
    assert read_key_file(folder / "bob") == BOB
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="it is empty"):
        read_key_file(tmp_path / "empty")


@given(key=st.text(max_size=40), prefix=st.integers(0, 16))
def test_only_the_exact_key_is_found(tmp_path_factory: pytest.TempPathFactory, key: str, prefix: int) -> None:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "alice").write_text(ALICE)
    keys = ApiKeys(folder)
    for guess in (key, ALICE[:prefix] + key):
        assert keys.find(guess) == ("alice" if guess == ALICE else "")
