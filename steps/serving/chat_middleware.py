"""``POST /chat {"prompt": "..."}`` in front of any OpenAI-compatible server.

KAITO's older quick start sends this request to a served model and expects ``{"Result": "..."}`` (its
``inference_api.py``). This ASGI middleware rewrites it to ``/v1/chat/completions`` and the response back; all other
requests pass unchanged. It imports only the standard library and Starlette, so that vLLM can load it in an environment
without our packages (``vllm serve --middleware``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from steps.runtime.json_text import parse_json
from steps.serving.allowlist import CHAT, CHAT_COMPLETIONS
from steps.serving.asgi import ResponseCut, call_app, error_response, replace_body

MAX_BODY_BYTES = 1 << 20
MAX_TOKENS = 200  # KAITO's default (max_length)

FORWARDED = ("model", "max_tokens", "temperature", "top_p", "seed", "stop")
# KAITO's older names of the same options, in "generate_kwargs" or next to "prompt".
OLD_NAMES = {"max_length": "max_tokens", "max_new_tokens": "max_tokens"}
REPLACED_HEADERS = (b"content-type", b"accept-encoding")


class BodyTooLarge(Exception):
    """The body of a request exceeds ``MAX_BODY_BYTES``."""


class ChatMiddleware:
    """Middleware that answers ``POST /chat`` with the requested model, or ``default_model``.

    If that is empty too, ``$ARGOTUNE_DEFAULT_MODEL`` is used.
    """

    def __init__(self, app: ASGIApp, default_model: Callable[[], str] = str) -> None:
        self.app = app
        self.default_model = default_model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, rewritten if it is one for ``/chat``."""
        if scope["type"] != "http" or scope["path"] != CHAT:
            await self.app(scope, receive, send)
            return
        try:
            response = await self._chat(Request(scope, receive))
        except ClientDisconnect:
            return
        except ResponseCut:
            response = error_response(HTTPStatus.SERVICE_UNAVAILABLE, "the answer was cut; send the request again")
        except BodyTooLarge:
            response = error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY_BYTES} bytes")
        except ValueError as error:
            response = error_response(HTTPStatus.BAD_REQUEST, str(error))
        await response(scope, receive, send)

    async def _chat(self, request: Request) -> Response:
        completion = json.dumps(completion_request(await _read_body(request), self.default_model())).encode()
        headers = [(key, value) for key, value in request.scope["headers"] if key.lower() not in REPLACED_HEADERS]
        headers.append((b"content-type", b"application/json"))
        rewritten = {"path": CHAT_COMPLETIONS, "raw_path": CHAT_COMPLETIONS.encode(), "headers": headers}
        scope, receive = replace_body({**request.scope, **rewritten}, request.receive, completion)
        response = await call_app(self.app, scope, receive)
        if response.status_code != HTTPStatus.OK:
            return response
        content = parse_json(bytes(response.body))
        text = content["choices"][0]["message"].get("content") or ""
        return JSONResponse({"Result": text, "model": content["model"]})


def completion_request(body: bytes, default_model: str = "") -> dict[str, Any]:
    """Convert the body of ``POST /chat`` to one for ``/v1/chat/completions``; greedy unless it sets a temperature.

    Raises:
        ValueError: The body is not JSON, has no prompt, or has a key that would be ignored.
    """
    try:
        content = parse_json(body)
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError('the body is not a JSON object: send {"prompt": "..."}')
    prompt = content.pop("prompt", None)
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError('"prompt" is missing, empty or not a string: send {"prompt": "..."}')
    generation = content.pop("generate_kwargs", None) or {}
    if not isinstance(generation, dict):
        raise ValueError('"generate_kwargs" is not a JSON object')
    both: dict[str, Any] = content | generation
    options = {OLD_NAMES.get(key, key): value for key, value in both.items() if value is not None}
    if options.pop("do_sample", True) is False:
        options["temperature"] = 0
    unknown = sorted(set(options) - set(FORWARDED))
    if unknown:
        raise ValueError(
            f"unknown keys: {', '.join(unknown)}; {CHAT} accepts prompt, {', '.join(FORWARDED)}; "
            f"for anything else use {CHAT_COMPLETIONS}"
        )
    model = default_model or os.environ.get("ARGOTUNE_DEFAULT_MODEL")
    defaults: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0} | ({"model": model} if model else {})
    return defaults | options | {"messages": [{"role": "user", "content": prompt}]}


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge
    return body
