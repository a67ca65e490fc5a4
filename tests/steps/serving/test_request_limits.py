from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from adapter_server import RunningServer

from steps.serving import desired_adapters, request_limits
from steps.serving.request_limits import MAX_BODY_BYTES, MAX_N

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CONTEXT, TOKEN_CHARS = 256, 2


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    base = tmp_path / "base"
    base.mkdir()
    config = {"text_config": {"max_position_embeddings": CONTEXT // 4, "rope_scaling": {"factor": 4.0}}}
    (base / "config.json").write_text(json.dumps(config))
    tokenizer = {"model": {"vocab": {"a": 0, "b" * TOKEN_CHARS: 1}}, "added_tokens": [{"content": "s"}]}
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    monkeypatch.setenv(desired_adapters.BASE_VARIABLE, str(base))
    running = RunningServer(tmp_path / "adapters.json", tmp_path / "pulled")
    yield running
    running.close()


def post(server: RunningServer, path: str, body: Any) -> requests.Response:
    return requests.post(server.address + path, json=body, timeout=120)


def chat(content: Any = "Hello", **options: Any) -> dict[str, Any]:
    return {"model": "base", "messages": [{"role": "user", "content": content}], **options}


def completion(prompt: Any = "Hello", **options: Any) -> dict[str, Any]:
    return {"model": "base", "prompt": prompt, **options}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (CHAT, chat(n=MAX_N + 1), 400, "n must be an integer from 1 to 16"),
        (CHAT, chat(n=10**9), 400, "n must be"),
        (CHAT, chat(n=True), 400, "n must be"),
        (COMPLETIONS, completion(best_of=1000), 400, "best_of must be"),
        (CHAT, chat(max_tokens=CONTEXT + 1), 400, "max_tokens must be an integer from 1 to 256"),
        (CHAT, chat(max_completion_tokens=10**12), 400, "max_completion_tokens must be"),
        (CHAT, chat(max_tokens="many"), 400, "max_tokens must be"),
        (CHAT, chat(chat_template="{% for i in range(10**9) %}{% endfor %}"), 400, "chat_template is not accepted"),
        (CHAT, chat(chat_template_kwargs={"chat_template": "{{ x }}"}), 400, "chat_template_kwargs accepts"),
        (CHAT, chat(chat_template_kwargs={"enable_thinking": [1] * 1000}), 400, "chat_template_kwargs accepts"),
        (CHAT, chat(chat_template_kwargs=["thinking"]), 400, "chat_template_kwargs must be an object"),
        (CHAT, chat("x" * (CONTEXT * TOKEN_CHARS + 1)), 413, "more than the context (256 tokens)"),
        (CHAT, chat([{"type": "text", "text": "x" * 400}, {"type": "text", "text": "x" * 400}]), 413, "more than"),
        (CHAT, chat(tools=[{"function": {"description": "x" * 1000}}]), 413, "more than the context"),
        (COMPLETIONS, completion("x" * (CONTEXT * TOKEN_CHARS + 1)), 413, "more than the context"),
        (COMPLETIONS, completion([1] * (CONTEXT + 1)), 400, "the prompt has 257 tokens"),
        (COMPLETIONS, completion([[1] * (CONTEXT + 1)]), 400, "the prompt has 257 tokens"),
        (COMPLETIONS, completion(["x"] * (MAX_N + 1)), 400, "17 prompts exceed"),
        (CHAT, [1], 400, "not a JSON object"),
        (CHAT, chat(generation_config='{"num_beams": 1000000}'), 400, "generation_config is not accepted"),
        (CHAT, chat(mm_processor_kwargs={"max_pixels": 10**12}), 400, "mm_processor_kwargs is not accepted"),
        (COMPLETIONS, completion(use_beam_search=True), 400, "use_beam_search is not accepted: send n"),
        (CHAT, chat(stop=["x"] * 17), 400, "stop must have at most 16 entries"),
        (CHAT, chat(stop="x" * 257), 400, "an entry of stop exceeds 256 characters"),
        (CHAT, chat(bad_words=["x"] * 100_000), 400, "bad_words must have at most 16 entries"),
        (CHAT, chat(stop=7), 400, "stop must have at most 16 entries"),
        (CHAT, chat(logit_bias={str(token): 1 for token in range(1025)}), 400, "logit_bias must have at most 1024"),
        (CHAT, chat(response_format={"json_schema": {"enum": ["x" * 40_000]}}), 400, "response_format exceeds 32768"),
        (CHAT, chat(structured_outputs={"regex": "(a|b)*" * 6000}), 400, "structured_outputs exceeds 32768"),
        (CHAT, {"model": "base", "messages": [{"role": ""}] * (CONTEXT + 1)}, 413, "257 messages have more tokens"),
    ],
)
def test_requests_beyond_the_limits_never_reach_the_server(
    server: RunningServer, path: str, body: Any, status: int, message: str
) -> None:
    response = post(server, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (status, status, "invalid_request_error")
    assert message in error["message"]
    assert server.server.calls == []


@pytest.mark.parametrize(
    "body",
    [
        chat(n=MAX_N, max_tokens=CONTEXT),
        chat(chat_template_kwargs={"enable_thinking": False, "thinking": True}),
        chat("x" * CONTEXT * (TOKEN_CHARS - 1)),
        chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}]),
        chat(stop="x", use_beam_search=False, logit_bias={"1": 5}, response_format={"type": "json_object"}),
        chat(stop=["x"] * 16, stop_token_ids=[1, 2], generation_config=None),
        chat(n=None, max_tokens=None, chat_template=None, chat_template_kwargs=None),
    ],
)
def test_requests_within_the_limits_are_answered(server: RunningServer, body: Any) -> None:
    assert post(server, CHAT, body).status_code == 200


def test_a_body_has_a_maximum_size(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "MAX_BODY_BYTES", 1000)
    large = json.dumps(chat("x" * 2000)).encode()
    for body in (large, iter([large[:500], large[500:]])):  # with and without a content-length
        response = requests.post(server.address + CHAT, data=body, timeout=120)
        assert (response.status_code, response.json()["error"]["code"]) == (413, 413)
        assert "exceeds 1000 bytes" in response.json()["error"]["message"]
    for body in (b"{", b"[" * 900, b"\xff"):
        response = requests.post(server.address + CHAT, data=body, timeout=120)
        assert response.status_code == 400 and "not JSON" in response.json()["error"]["message"]
    assert server.server.calls == []
    assert MAX_BODY_BYTES < 1 << 24


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_are_finite(server: RunningServer, number: str) -> None:
    body = json.dumps(chat(temperature=0.5)).replace("0.5", number)
    response = requests.post(server.address + CHAT, data=body, timeout=120)
    assert (response.status_code, server.server.calls) == (400, [])
    assert "not finite" in response.json()["error"]["message"]


def test_the_limits_hold_for_chat_too(server: RunningServer) -> None:
    assert post(server, "/chat", {"prompt": "x" * 1000}).status_code == 413
    assert post(server, "/chat", {"prompt": "x", "max_length": 1000}).status_code == 400


def test_the_context_is_that_of_the_server(
    tmp_path: Path, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert request_limits.RequestLimits(server.server).context == CONTEXT
    monkeypatch.setenv(desired_adapters.CONTEXT_VARIABLE, "32")
    assert request_limits.RequestLimits(server.server).context == 32
    assert request_limits.read_context(tmp_path / "nothing") == 0
