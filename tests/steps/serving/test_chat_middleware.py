from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import uvicorn

from steps.serving import chat_middleware
from steps.serving.allowlist import RequestAllowlist
from steps.serving.chat_middleware import ChatMiddleware


class Completions:
    """A fake OpenAI-compatible ASGI server that records its requests."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("unexpected lifespan")
        body = (await receive())["body"]
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        self.seen.append({"path": scope["path"], "method": scope["method"], "body": body, "headers": headers})
        request = json.loads(body or b"{}")
        if request.get("model") == "nope":
            status, answer = 404, {"error": {"message": "no such model", "code": 404}}
        else:
            message = {"role": "assistant", "content": f"heard {request['messages'][0]['content']}"}
            status, answer = 200, {"model": request.get("model", "base"), "choices": [{"message": message}]}
        # In two chunks and with a header, to check that everything is forwarded.
        text = json.dumps(answer).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-inner", b"yes")]})
        await send({"type": "http.response.body", "body": text[:5], "more_body": True})
        await send({"type": "http.response.body", "body": text[5:]})


@pytest.fixture
def completions() -> Completions:
    return Completions()


@pytest.fixture
def address(completions: Completions) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(RequestAllowlist(ChatMiddleware(completions)), log_level="error", lifespan="off")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    end = time.monotonic() + 120
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_prompt_is_rewritten_and_the_response_has_kaitos_form(
    address: str, completions: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOTUNE_DEFAULT_MODEL", "tuned")
    response = requests.post(f"{address}/chat", json={"prompt": "grüß dich"})
    assert response.status_code == 200
    assert response.json() == {"Result": "heard grüß dich", "model": "tuned"}
    (seen,) = completions.seen
    assert seen["path"] == "/v1/chat/completions"
    assert int(seen["headers"]["content-length"]) == len(seen["body"])
    assert json.loads(seen["body"]) == {
        "model": "tuned",
        "max_tokens": 200,
        "temperature": 0,
        "messages": [{"role": "user", "content": "grüß dich"}],
    }


def test_content_type_is_optional(address: str) -> None:
    assert requests.post(f"{address}/chat", data=b'{"prompt": "x"}').json()["Result"] == "heard x"


def test_options_of_the_request_override_the_defaults(
    address: str, completions: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOTUNE_DEFAULT_MODEL", "tuned")
    requests.post(f"{address}/chat", json={"prompt": "x", "model": "base", "max_tokens": 5, "temperature": 0.5})
    sent = json.loads(completions.seen[0]["body"])
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("base", 5, 0.5)


def test_no_model_without_a_default(address: str, completions: Completions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARGOTUNE_DEFAULT_MODEL", raising=False)
    assert requests.post(f"{address}/chat", json={"prompt": "x"}).json()["model"] == "base"
    assert "model" not in json.loads(completions.seen[0]["body"])


def test_kaitos_older_options(address: str, completions: Completions) -> None:
    old = {"max_length": 7, "do_sample": False, "temperature": 0.9, "top_p": None}
    requests.post(f"{address}/chat", json={"prompt": "x", "prefix": None, "generate_kwargs": old})
    sent = json.loads(completions.seen[0]["body"])
    assert (sent["max_tokens"], sent["temperature"]) == (7, 0)
    assert "top_p" not in sent


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"prompt":', "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b"", "not JSON"),
        (b'["prompt"]', "not a JSON object"),
        (b"{}", '"prompt" is missing'),
        (b'{"prompt": "  "}', '"prompt" is missing'),
        (b'{"prompt": 3}', '"prompt" is missing'),
        (b'{"prompt": "x", "generate_kwargs": [1]}', '"generate_kwargs" is not'),
        (b'{"prompt": "x", "stream": true, "num_beams": 4}', "unknown keys: num_beams, stream"),
    ],
)
def test_an_invalid_body_is_a_400(address: str, completions: Completions, body: bytes, says: str) -> None:
    response = requests.post(f"{address}/chat", data=body)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]
    assert completions.seen == []


def test_a_too_large_body_is_a_413(address: str, completions: Completions) -> None:
    response = requests.post(f"{address}/chat", json={"prompt": "x" * chat_middleware.MAX_BODY_BYTES})
    assert response.status_code == 413
    assert completions.seen == []


def test_only_post_is_allowed(address: str) -> None:
    response = requests.get(f"{address}/chat")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_errors_of_the_server_are_forwarded(address: str) -> None:
    response = requests.post(f"{address}/chat", json={"prompt": "x", "model": "nope"})
    assert response.status_code == 404
    assert response.headers["x-inner"] == "yes"
    assert response.json()["error"]["message"] == "no such model"


def test_other_requests_are_unchanged(address: str, completions: Completions) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "y"}]}
    response = requests.post(f"{address}/v1/chat/completions", json=body)
    assert response.json()["choices"][0]["message"]["content"] == "heard y"
    assert json.loads(completions.seen[0]["body"]) == body
