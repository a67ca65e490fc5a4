"""``POST /chat {"prompt": "..."}`` in front of any OpenAI-compatible server.

KAITO's older quick start asks a served model that way and is answered ``{"Result": "..."}`` (its
``inference_api.py``). This ASGI middleware rewrites such a request into ``/v1/chat/completions`` and the answer back;
everything else passes untouched. It imports the standard library alone, so that vLLM can load it in an environment of
its own (``vllm serve --middleware``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PATH = "/chat"
COMPLETIONS = "/v1/chat/completions"
MAX_BODY_BYTES = 1 << 20
MAX_TOKENS = 200  # KAITO's own default (max_length)

PASSED_ON = ("model", "max_tokens", "temperature", "top_p", "seed", "stop")
# KAITO's older spelling of the same, in "generate_kwargs" or beside "prompt".
OLD_NAMES = {"max_length": "max_tokens", "max_new_tokens": "max_tokens"}


class ChatMiddleware:
    """Answers ``POST /chat`` by the model named in the request, else by that of ``default_model``.

    Where that is none either, ``$ARGOTUNE_DEFAULT_MODEL`` answers.
    """

    def __init__(self, app: App, default_model: Callable[[], str] = str) -> None:
        self.app = app
        self.default_model = default_model

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, rewritten if it is one for ``/chat``."""
        if scope["type"] != "http" or scope["path"].rstrip("/") != PATH:
            await self.app(scope, receive, send)
            return
        if scope["method"] != "POST":
            await _refuse(send, HTTPStatus.METHOD_NOT_ALLOWED, f"{PATH} answers POST only", [(b"allow", b"POST")])
            return
        body = await _read(receive)
        if body is None:
            await _refuse(send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY_BYTES} bytes")
            return
        try:
            completion = completion_request(body, self.default_model())
        except ValueError as error:
            await _refuse(send, HTTPStatus.BAD_REQUEST, str(error))
            return
        start, answer = await self._complete(scope, receive, json.dumps(completion).encode())
        if start["status"] != HTTPStatus.OK:
            await send(start)
            await send({"type": "http.response.body", "body": answer})
            return
        content = json.loads(answer)
        text = content["choices"][0]["message"].get("content") or ""
        await _answer(send, HTTPStatus.OK, {"Result": text, "model": content["model"]})

    async def _complete(self, scope: Message, receive: Receive, body: bytes) -> tuple[Message, bytes]:
        """Let the server answer the rewritten request; returns the start of its response and the whole body."""
        replaced = (b"content-length", b"content-type", b"transfer-encoding", b"accept-encoding")
        headers = [(key, value) for key, value in scope["headers"] if key.lower() not in replaced]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        inner = {**scope, "path": COMPLETIONS, "raw_path": COMPLETIONS.encode(), "headers": headers}
        request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        start: Message = {}
        parts: list[bytes] = []

        async def take() -> Message:
            return request.pop() if request else await receive()  # afterwards only the client's hanging up

        async def give(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        await self.app(inner, take, give)
        return start, b"".join(parts)


def completion_request(body: bytes, default_model: str = "") -> dict[str, Any]:
    """Turn the body of ``POST /chat`` into one for ``/v1/chat/completions``; greedy unless it says otherwise.

    Raises:
        ValueError: when it is not JSON, has no prompt, or holds a key that would be ignored.
    """
    try:
        given = json.loads(body)
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError('the body is not a JSON object: send {"prompt": "..."}')
    prompt = given.pop("prompt", None)
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError('"prompt" is missing, empty or not a text: send {"prompt": "..."}')
    generation = given.pop("generate_kwargs", None) or {}
    if not isinstance(generation, dict):
        raise ValueError('"generate_kwargs" is not a JSON object')
    both: dict[str, Any] = given | generation
    options = {OLD_NAMES.get(key, key): value for key, value in both.items() if value is not None}
    if options.pop("do_sample", True) is False:
        options["temperature"] = 0
    unknown = sorted(set(options) - set(PASSED_ON))
    if unknown:
        raise ValueError(
            f"not understood: {', '.join(unknown)}; {PATH} takes prompt, {', '.join(PASSED_ON)}; "
            f"for anything else use {COMPLETIONS}"
        )
    model = default_model or os.environ.get("ARGOTUNE_DEFAULT_MODEL")
    defaults: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0} | ({"model": model} if model else {})
    return defaults | options | {"messages": [{"role": "user", "content": prompt}]}


async def _read(receive: Receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return body


async def _refuse(send: Send, status: HTTPStatus, why: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Refuse in the form that OpenAI's API and vLLM use."""
    error = {"message": why, "type": "invalid_request_error", "param": None, "code": int(status)}
    await _answer(send, status, {"error": error}, headers)


async def _answer(
    send: Send, status: HTTPStatus, content: Any, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps(content, ensure_ascii=False).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": int(status), "headers": head})
    await send({"type": "http.response.body", "body": body})
