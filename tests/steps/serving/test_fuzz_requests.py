"""Damaged requests to /chat and /v1 get a response of 4xx; damaged lists of adapters are refused."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import pytest
from mutations import TEXTS, mutate_document
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from steps.serving import desired_adapters
from steps.serving.allowlist import CHAT, CHAT_COMPLETIONS, COMPLETIONS, RequestAllowlist
from steps.serving.chat_middleware import ChatMiddleware
from steps.serving.request_limits import RequestLimits

PROMPT: dict[str, Any] = {"prompt": "hello", "max_tokens": 5, "generate_kwargs": {"max_length": 9, "do_sample": False}}
MESSAGES: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}, {"role": "system", "content": "x"}],
    "n": 1,
    "max_tokens": 5,
    "stream": False,
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "chat_template_kwargs": {"enable_thinking": False},
}
TEXT = {"model": "m", "prompt": ["hello", [1, 2]], "max_tokens": 5, "best_of": 1}
SEEDS = {CHAT: PROMPT, CHAT_COMPLETIONS: MESSAGES, COMPLETIONS: TEXT}
ADAPTERS = {"adapters": [{"name": "a", "image": "r/a@sha256:1", "digest": "sha256:1", "folder": "", "weight": 100}]}


async def server(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the server: it reads the body that it gets as strictly as a parser of JSON."""
    body = json.loads(await Request(scope, receive).body())
    assert isinstance(body, dict)
    answer = {"model": "m", "choices": [{"message": {"content": "hello"}}]}
    await JSONResponse(answer)(scope, receive, send)


APP = RequestAllowlist(ChatMiddleware(RequestLimits(server, 100, 16), lambda: "m"))


class Refused(Exception):
    """The response was 4xx, with a message."""


def post(path: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    sent: list[Message] = []
    chunks = [body[:100], body[100:]]

    async def receive() -> Message:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    asyncio.run(APP(scope, receive, send))
    assert sent[0]["status"] < 500, sent
    if sent[0]["status"] != 200:
        answer = json.loads(b"".join(message.get("body", b"") for message in sent[1:]))
        raise Refused(answer["error"]["message"])


def request(chance: random.Random, path: str) -> tuple[str, bytes, list[tuple[bytes, bytes]]]:
    length = chance.choice([b"-1", b"x", b"9" * 30, b"5"] + [None] * 6)  # type: ignore[list-item]
    headers = [(b"content-type", b"application/json"), (b"host", b"a")]
    headers += [(b"content-length", length)] if length else []
    headers += [(b"x", chance.choice(TEXTS).encode("utf-8", "replace"))] if chance.random() < 0.2 else []
    return path, mutate_document(chance, SEEDS[path]), headers


def run(tmp_path: Path, kind: str, count: int) -> None:
    if kind == "desired adapters":

        def read(content: bytes) -> None:
            desired_adapters.parse(content.decode("utf-8", "replace"))

        fuzz.check(kind, read, lambda c: mutate_document(c, ADAPTERS), count, refusals=(ValueError,))
        return
    create: Callable[[random.Random], Any] = lambda chance: request(chance, kind)  # noqa: E731
    fuzz.check(f"POST {kind}", lambda value: post(*value), create, count, refusals=(Refused,))


@pytest.mark.parametrize(("kind", "count"), fuzz.cases((*SEEDS, "desired adapters")))
def test_damaged_requests_are_refused(tmp_path: Path, kind: str, count: int) -> None:
    run(tmp_path, kind, count)
