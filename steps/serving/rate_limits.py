"""ASGI middleware that limits requests and tokens per minute, of each API key, or of all clients without keys.

Each limit is a token bucket that holds one minute's allowance and is refilled continuously. It is kept in memory: it
holds for one server, and N replicas accept N times as much.

A request reserves its prompt (4 characters a token) and ``max_tokens`` for each answer. When the response ends, the
server's ``usage`` replaces the reservation. A request larger than the allowance is accepted by a full bucket; its
excess is a debt that delays the next requests. Standard library and Starlette only, as vLLM loads it without our
packages.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steps.serving import desired_adapters
from steps.serving.api_key_check import CLIENT
from steps.serving.asgi import error_response, replace_body
from steps.serving.request_texts import PARSED, iter_texts, list_prompts

CHARS_PER_TOKEN = 4
ANSWER_TOKENS = 512
"""Tokens reserved for an answer without ``max_tokens``."""
# A quote within a JSON string follows a backslash, so these never match the text of an answer.
_TOTAL = re.compile(rb'[{,]\s*"total_tokens"\s*:\s*(\d+)')
_NO_CHOICES = re.compile(rb'[{,]\s*"choices"\s*:\s*\[\s*\]')
_TAIL_BYTES = 64
"""Bytes of a response part that are searched again with the next one."""
Clock = Callable[[], float]


class Bucket:
    """An allowance per minute; its level is negative while there is a debt."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute = self.level = float(per_minute)
        self._clock = clock
        self._updated = clock()

    def seconds_until(self, cost: float) -> float:
        """Return the time until the bucket has ``cost``, or is full if it never can."""
        now = self._clock()
        self.add((now - self._updated) * self.per_minute / 60)
        self._updated = now
        return round(max(0.0, min(cost, self.per_minute) - self.level) * 60 / self.per_minute, 3)

    def add(self, amount: float) -> None:
        """Refill the bucket, or take from it."""
        self.level = min(self.per_minute, self.level + amount)


class RateLimits:
    """Middleware behind ``RequestLimits``, which passes it the parsed requests for completions."""

    def __init__(
        self, app: ASGIApp, requests: int | None = None, tokens: int | None = None, clock: Clock = time.monotonic
    ) -> None:
        self.app = app
        self.requests = _from_environment(desired_adapters.REQUESTS_VARIABLE) if requests is None else requests
        self.tokens = _from_environment(desired_adapters.TOKENS_VARIABLE) if tokens is None else tokens
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if the limits allow it; otherwise respond with 429 and the time to wait."""
        request = scope.get(PARSED)
        if request is None or not (self.requests or self.tokens):
            await self.app(scope, receive, send)
            return
        client = scope.get(CLIENT, "")
        reserved = min(estimate_tokens(request), self.tokens)
        costs = {"requests": (self.requests, 1), "tokens": (self.tokens, reserved)}
        buckets = {kind: (self._bucket(client, kind, limit), cost) for kind, (limit, cost) in costs.items() if limit}
        waits = {kind: bucket.seconds_until(cost) for kind, (bucket, cost) in buckets.items()}
        kind = max(waits, key=lambda kind: waits[kind])
        if waits[kind] > 0:
            await self._reject(client, kind, waits[kind])(scope, receive, send)
            return
        for bucket, cost in buckets.values():
            bucket.add(-cost)
        if not self.tokens:
            await self.app(scope, receive, send)
            return
        scope, receive, hide_usage = _with_usage(scope, receive, request)
        settled = False

        def settle() -> None:
            nonlocal settled
            if not settled:
                self._bucket(client, "tokens", self.tokens).add(reserved - usage.tokens(request, reserved))
                settled = True

        usage = _Usage(send, hide_usage, settle)
        try:
            await self.app(scope, receive, usage.send)
        finally:
            settle()

    def _bucket(self, client: str, kind: str, limit: int) -> Bucket:
        return self._buckets.setdefault((client, kind), Bucket(limit, self._clock))

    def _reject(self, client: str, kind: str, seconds: float) -> ASGIApp:
        limit = {"requests": self.requests, "tokens": self.tokens}[kind]
        subject = f"of the API key {client}" if client else "of this server"
        message = f"the rate limit {subject} is reached ({limit} {kind} per minute); retry in {math.ceil(seconds)} s"
        headers = {"retry-after": str(math.ceil(seconds))}
        return error_response(HTTPStatus.TOO_MANY_REQUESTS, message, kind, headers, "rate_limit_exceeded")


def estimate_tokens(request: Mapping[str, Any]) -> int:
    """Return the tokens that a request reserves: those of its prompts and of its longest answers."""
    answers = len(list_prompts(request.get("prompt"))) * int(request.get("n") or 1)
    limit = request.get("max_completion_tokens") or request.get("max_tokens") or ANSWER_TOKENS
    return prompt_tokens(request) + answers * int(limit)


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """Return an estimate of a request's input tokens."""
    prompts = list_prompts(request.get("prompt"))
    num_ids = sum(len(one) for one in prompts if isinstance(one, list))
    texts = [*(one for one in prompts if isinstance(one, str)), request.get("messages"), request.get("tools")]
    return num_ids + math.ceil(sum(map(len, iter_texts(texts))) / CHARS_PER_TOKEN)


class _Usage:
    """The send channel of a response, whose tokens it counts.

    Args:
        send: Channel to the client.
        hide: Omit the event that has only the usage, which the client has not requested.
        settle: Called before the end of the response is sent, so that the client's next request finds its tokens.
    """

    def __init__(self, send: Send, hide: bool, settle: Callable[[], None]) -> None:
        self._send = send
        self._hide = hide
        self._settle = settle
        self._status = 0
        self._total: int | None = None
        self._num_events = 0
        self._tail = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            self._num_events += body.count(b"data: ")
            for match in _TOTAL.finditer(self._tail + body):
                self._total = int(match[1])
            self._tail = (self._tail + body)[-_TAIL_BYTES:]
            if self._hide:
                message = {**message, "body": _without_usage_event(body)}
            if not message.get("more_body"):
                self._settle()
        await self._send(message)

    def tokens(self, request: Mapping[str, Any], reserved: int) -> int:
        """Return the tokens to charge: the server's count, or else an estimate for a response that was cut."""
        if self._total is not None:
            return self._total
        if self._status >= HTTPStatus.BAD_REQUEST:
            return 0
        return prompt_tokens(request) + self._num_events if self._num_events else reserved


def _without_usage_event(body: bytes) -> bytes:
    events = body.split(b"\n\n")
    return b"\n\n".join(event for event in events if not (_NO_CHOICES.search(event) and _TOTAL.search(event)))


def _with_usage(scope: Scope, receive: Receive, request: Mapping[str, Any]) -> tuple[Scope, Receive, bool]:
    """Return a request that makes the server report the usage of a stream, and True if it did not do so before."""
    options = request.get("stream_options")
    options = options if isinstance(options, dict) else {}
    if not request.get("stream") or options.get("include_usage"):
        return scope, receive, False
    body = json.dumps({**request, "stream_options": {**options, "include_usage": True}}).encode()
    return (*replace_body(scope, receive, body), True)


def _from_environment(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 0
