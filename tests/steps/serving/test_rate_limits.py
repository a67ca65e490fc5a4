from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from app_server import listen
from hypothesis import given
from hypothesis import strategies as st

from steps.serving import api_keys, desired_adapters, rate_limits
from steps.serving.adapter_reloader import AdapterReloader
from steps.serving.api_key_check import ApiKeyCheck
from steps.serving.chat_middleware import ChatMiddleware
from steps.serving.middleware import ServingMiddleware
from steps.serving.rate_limits import Bucket, RateLimits, estimate_tokens
from steps.serving.request_limits import RequestLimits

ALICE, BOB = "alice-0123456789", "bob-0123456789abc"
PROMPT, ANSWER = 10, 20
"""Tokens that the server reports."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Responds like vLLM: usage at the end, of a stream on request only."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = json.loads((await receive())["body"])
        self.requests.append(request)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        usage = {"prompt_tokens": PROMPT, "total_tokens": PROMPT + ANSWER, "completion_tokens": ANSWER}
        choices = [{"text": r'"total_tokens": 99999', "message": {"content": '"choices": [], "total_tokens":7'}}]
        if self.status != 200:
            await send({"type": "http.response.body", "body": b'{"error": {}}'})
        elif not request.get("stream"):
            body = json.dumps({"model": "base", "choices": choices, "usage": usage}).encode()
            for start in range(0, len(body), 7):
                await send({"type": "http.response.body", "body": body[start : start + 7], "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            events = [{"choices": choices}] * 3
            if (request.get("stream_options") or {}).get("include_usage"):
                events.append({"choices": [], "usage": usage})
            for event in [*map(json.dumps, events), "[DONE]"]:
                await send({"type": "http.response.body", "body": f"data: {event}\n\n".encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Server:
    return Server()


Post = Callable[..., requests.Response]
Start = Callable[..., Post]


@pytest.fixture
def start(tmp_path: Path, server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    running = []
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "alice").write_text(ALICE)
    (folder / "bob").write_text(BOB)

    def serve(requests_: int = 0, tokens: int = 0, keys: bool = True) -> Post:
        monkeypatch.setenv(api_keys.FOLDER_VARIABLE, str(folder) if keys else "")
        limits = RequestLimits(RateLimits(server, requests_, tokens, clock))
        context = listen(ApiKeyCheck(ChatMiddleware(limits)))
        port = context.__enter__()
        running.append(context)

        def post(key: str = ALICE, path: str = "/v1/completions", **body: Any) -> requests.Response:
            headers = {"Authorization": f"Bearer {key}"}
            content = {"prompt": "x" * 4 * PROMPT, "model": "base", **body}
            return requests.post(f"http://127.0.0.1:{port}{path}", json=content, headers=headers, timeout=120)

        return post

    yield serve
    for context in running:
        context.__exit__(None, None, None)


def test_each_key_has_its_own_request_rate(start: Start, clock: Clock, server: Server) -> None:
    post = start(requests_=2)
    assert [post().status_code for _ in range(3)] == [200, 200, 429]
    assert [post(BOB).status_code for _ in range(2)] == [200, 200], "another key is not limited by the first"
    rejected = post()
    error = rejected.json()["error"]
    assert (rejected.headers["retry-after"], error["code"], error["type"]) == ("30", "rate_limit_exceeded", "requests")
    assert "of the API key alice is reached (2 requests per minute)" in error["message"]
    assert ALICE not in rejected.text and len(server.requests) == 4
    clock.now += 29
    assert post().headers["retry-after"] == "1"
    clock.now += 1
    assert [post().status_code for _ in range(2)] == [200, 429]
    clock.now += 3600
    assert [post().status_code for _ in range(3)] == [200, 200, 429], "a bucket holds one minute's allowance"


def test_without_keys_the_limit_is_that_of_the_server(start: Start) -> None:
    post = start(requests_=1, keys=False)
    assert [post(key).status_code for key in (ALICE, BOB)] == [200, 429]
    assert "of this server is reached" in post().json()["error"]["message"]


def test_chat_is_limited_and_invalid_requests_do_not_count(start: Start, server: Server) -> None:
    post = start(requests_=2, tokens=1000)
    assert post(max_tokens=-1).status_code == 400
    assert post(path="/chat").status_code == 200
    assert post(path="/chat").status_code == 200
    assert post(path="/chat").status_code == 429


@pytest.mark.parametrize("stream", [False, True])
def test_the_tokens_of_the_answer_are_charged(start: Start, clock: Clock, server: Server, stream: bool) -> None:
    total = PROMPT + ANSWER
    post = start(tokens=total * 3)
    options = {"max_tokens": total * 2 - PROMPT, "stream": stream}  # reserves two thirds
    assert [post(**options).status_code for _ in range(3)] == [200, 200, 429], "what was not used is returned"
    rejected = post(**options)
    assert rejected.json()["error"]["type"] == "tokens" and rejected.headers["retry-after"] == "20"
    assert post(BOB, **options).status_code == 200
    clock.now += 20
    assert [post(**options).status_code for _ in range(2)] == [200, 429]


def test_failed_requests_cost_no_tokens(start: Start, server: Server) -> None:
    post = start(tokens=100)
    server.status = 500
    assert [post(max_tokens=90).status_code for _ in range(3)] == [500] * 3


def test_a_request_beyond_the_allowance_is_accepted_and_delays_the_next(start: Start, clock: Clock) -> None:
    post = start(tokens=PROMPT)
    assert post(max_tokens=1000).status_code == 200
    rejected = post()
    assert (rejected.status_code, rejected.headers["retry-after"]) == (429, str((PROMPT + ANSWER) // PROMPT * 60))
    clock.now += 180
    assert post().status_code == 200


def test_the_usage_of_a_stream_is_hidden_unless_requested(start: Start, server: Server) -> None:
    post = start(tokens=10_000)
    hidden = [line for line in post(stream=True).text.splitlines() if line]
    assert len(hidden) == 4 and hidden[-1] == "data: [DONE]"
    assert all(json.loads(line[6:])["choices"] for line in hidden[:-1])
    shown = post(stream=True, stream_options={"include_usage": True}).text
    assert shown.count("data: ") == 5 and '"usage"' in shown
    assert [request["stream_options"] for request in server.requests] == [{"include_usage": True}] * 2


def test_without_a_limit_requests_are_unchanged(start: Start, server: Server) -> None:
    post = start()
    assert all(post(stream=True).status_code == 200 for _ in range(20))
    assert "stream_options" not in server.requests[0]


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        ({"prompt": "x" * 40, "max_tokens": 5}, 15),
        ({"prompt": ["x" * 4, "x" * 4], "max_tokens": 5, "n": 2}, 22),
        ({"prompt": [[1, 2, 3], [4]], "max_tokens": 5}, 14),
        ({"prompt": [1, 2, 3], "max_tokens": 5}, 8),
        ({"messages": [{"role": "user", "content": "x" * 36}], "max_completion_tokens": 7, "max_tokens": 5}, 17),
        ({"messages": []}, rate_limits.ANSWER_TOKENS),
    ],
)
def test_a_request_reserves_its_prompt_and_longest_answers(request_: dict[str, Any], tokens: int) -> None:
    assert estimate_tokens(request_) == tokens


def test_the_middleware_has_the_limits_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    monkeypatch.setenv(desired_adapters.REQUESTS_VARIABLE, "3")
    monkeypatch.setenv(desired_adapters.TOKENS_VARIABLE, "")
    limits = RateLimits(app)
    assert (limits.requests, limits.tokens) == (3, 0)
    assert ServingMiddleware(app, AdapterReloader(app))


@given(
    limit=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 2000), st.integers(0, 3000)), max_size=50),
)
def test_a_bucket_never_exceeds_its_rate(limit: int, steps: list[tuple[float, int, int]]) -> None:
    """Over any time, at most one minute's allowance, the refill and one request's excess are spent."""
    clock = Clock()
    bucket, spent, begin = Bucket(limit, clock), 0.0, clock.now
    for seconds, cost, used in steps:
        clock.now += seconds
        wait = bucket.seconds_until(cost)
        assert wait >= 0 and math.isfinite(wait)
        if wait == 0:
            assert spent <= limit * (1 + (clock.now - begin) / 60) + 1
            bucket.add(-min(cost, limit))
            bucket.add(min(cost, limit) - used)
            spent += used
        else:
            clock.now += wait
            assert bucket.seconds_until(cost) <= 0.001, "the reported time is long enough"
