"""ASGI middleware that rejects requests whose cost has no bound, before the server reads their text.

It limits the body, the prompt, ``n`` and ``max_tokens``, and rejects Jinja templates of clients: a template of a few
bytes can use all memory and CPU time. Standard library and Starlette only, as vLLM loads it without our packages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from steps.runtime.json_text import parse_json
from steps.serving import desired_adapters
from steps.serving.allowlist import CHAT_COMPLETIONS, COMPLETIONS
from steps.serving.asgi import error_response, replace_body
from steps.serving.request_texts import PARSED, iter_texts, list_prompts

MAX_BODY_BYTES = 8 << 20
MAX_N = 16
"""Maximum answers, and maximum prompts, of a request."""
MAX_TOKENS = 1 << 17
"""Maximum ``max_tokens`` for a model whose context is not known."""
MAX_TOKEN_CHARS = 256
"""Longest token of a model without ``tokenizer.json``."""
TEMPLATE_KWARGS = ("enable_thinking", "thinking", "reasoning_effort")
"""Accepted keys of ``chat_template_kwargs``: switches of reasoning models."""
MAX_STOPS = 16
"""Maximum entries of lists that the server compares with each token of an answer."""
MAX_STOP_CHARS = 256
MAX_GRAMMAR_CHARS = 1 << 15
"""Maximum characters of a JSON schema or grammar, which the server compiles."""
STOPS = ("stop", "stop_token_ids", "bad_words")
MAX_TOKEN_IDS = 1024
TOKEN_LISTS = ("logit_bias", "allowed_token_ids")
GRAMMARS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
REJECTED = {
    "chat_template": "the server uses the model's template",
    "generation_config": "send max_tokens, temperature, top_p, seed and stop",
    "mm_processor_kwargs": "the server sets them",
    "media_io_kwargs": "the server sets them",
    "kv_transfer_params": "the server sets them",
    "vllm_xargs": "the server sets them",
    "use_beam_search": "send n",
}
"""Keys that circumvent other limits or change how the server works, with what to do instead."""


class RequestError(Exception):
    """A request exceeds a limit."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


class RequestLimits:
    """Middleware that checks requests for completions.

    Args:
        app: The server.
        context: Maximum tokens of a prompt and its answer; 0: that of the environment or the base model.
        token_chars: Characters of the model's longest token; 0: that of the base model.
    """

    def __init__(self, app: ASGIApp, context: int = 0, token_chars: int = 0) -> None:
        base = Path(os.environ.get(desired_adapters.BASE_VARIABLE) or "/nothing")
        limit = os.environ.get(desired_adapters.CONTEXT_VARIABLE, "")
        self.app = app
        self.context = context or (int(limit) if limit.isdecimal() else 0) or read_context(base)
        self.token_chars = token_chars or _longest_token(base)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request within the limits, serialized again, so that all parsers read the same values."""
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or scope["path"] not in (CHAT_COMPLETIONS, COMPLETIONS)
        ):
            await self.app(scope, receive, send)
            return
        try:
            request = parse_object(await read_body(Request(scope, receive), MAX_BODY_BYTES))
            self.check(request)
            body = _serialize(request)
        except ClientDisconnect:
            return
        except RequestError as error:
            await error_response(error.status, str(error))(scope, receive, send)
            return
        scope, receive = replace_body(scope, receive, body)
        await self.app({**scope, PARSED: request}, receive, send)

    def check(self, request: Mapping[str, Any]) -> None:
        """Raise RequestError if a parsed request exceeds a limit."""
        for key, instead in REJECTED.items():
            if request.get(key) not in (None, False):
                raise RequestError(f"{key} is not accepted: {instead}")
        kwargs = request.get("chat_template_kwargs")
        if kwargs is not None and not isinstance(kwargs, dict):
            raise RequestError("chat_template_kwargs must be an object")
        for key, value in (kwargs or {}).items():
            if key not in TEMPLATE_KWARGS or not isinstance(value, bool | str):
                raise RequestError(f"chat_template_kwargs accepts {', '.join(TEMPLATE_KWARGS)} only")
        for key in ("n", "best_of"):
            _check_integer(request, key, MAX_N)
        for key in ("max_tokens", "max_completion_tokens"):
            _check_integer(request, key, self.context or MAX_TOKENS)
        for key in STOPS:
            _check_list(request, key, MAX_STOPS)
        for key in TOKEN_LISTS:
            _check_list(request, key, MAX_TOKEN_IDS)
        _check_grammars(request)
        self._check_prompts(request.get("prompt"))
        messages = request.get("messages")
        if self.context and isinstance(messages, list) and len(messages) > self.context:
            message = f"{len(messages)} messages have more tokens than the context ({self.context})"
            raise RequestError(message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self._check_length(sum(map(len, iter_texts([request.get("messages"), request.get("tools")]))))

    def _check_prompts(self, prompt: Any) -> None:
        """Check a prompt: a text, token ids, or a list of these."""
        prompts = list_prompts(prompt)
        if len(prompts) > MAX_N:
            raise RequestError(f"{len(prompts)} prompts exceed the maximum ({MAX_N})")
        for one in prompts:
            if isinstance(one, str):
                self._check_length(len(one))
            elif isinstance(one, list) and self.context and len(one) > self.context:
                raise RequestError(f"the prompt has {len(one)} tokens, more than the context ({self.context})")

    def _check_length(self, chars: int) -> None:
        if self.context and chars > self.context * self.token_chars:
            raise RequestError(
                f"the prompt has {chars} characters: more than the context ({self.context} tokens)",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request; stop reading at the limit.

    Raises:
        RequestError: It exceeds ``limit`` bytes.
    """
    length = request.headers.get("content-length", "")
    body = bytearray()
    too_large = RequestError(f"the body exceeds {limit} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if length.isdecimal() and (len(length) > 18 or int(length) > limit):
        raise too_large
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        RequestError: It is not a JSON object.
    """
    try:
        content = parse_json(body)
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise RequestError("the body is not a JSON object")
    if b"\\u" in body and not _is_unicode(content):
        raise RequestError("the body has half of a surrogate pair, which is not Unicode text")
    return content


def _is_unicode(content: dict[str, Any]) -> bool:
    """Return True if all texts can be encoded: tokenizers fail for others."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _serialize(request: Mapping[str, Any]) -> bytes:
    """Return a request as JSON that any server can read: without NaN and infinity."""
    try:
        return json.dumps(request, allow_nan=False).encode()
    except ValueError:
        raise RequestError("the body has a number that is not finite") from None


def read_context(base: Path) -> int:
    """Return the context length in a model's ``config.json``, with its RoPE scaling; 0 if it has none."""
    try:
        config = parse_json((base / "config.json").read_text())
        config = config.get("text_config") or config
        length = int(config.get("max_position_embeddings") or 0)
        scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
        return int(length * max(1.0, float(scaling.get("factor") or 1.0)))
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return 0


def _longest_token(base: Path) -> int:
    """Return the number of characters of a model's longest token, with which no prompt has fewer tokens."""
    try:
        tokenizer = parse_json((base / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        tokens = [token if isinstance(token, str) else token[0] for token in vocabulary]
        tokens += [token["content"] for token in tokenizer.get("added_tokens") or []]
        return max(map(len, tokens)) or MAX_TOKEN_CHARS
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return MAX_TOKEN_CHARS


def _check_integer(request: Mapping[str, Any], key: str, limit: int) -> None:
    value = request.get(key)
    if value is not None and (type(value) is not int or not 1 <= value <= limit):
        raise RequestError(f"{key} must be an integer from 1 to {limit}")


def _check_list(request: Mapping[str, Any], key: str, limit: int) -> None:
    value = request.get(key)
    entries = [value] if isinstance(value, str) else value
    if entries is None:
        return
    if not isinstance(entries, list | dict) or len(entries) > limit:
        raise RequestError(f"{key} must have at most {limit} entries")
    if any(len(str(entry)) > MAX_STOP_CHARS for entry in entries):
        raise RequestError(f"an entry of {key} exceeds {MAX_STOP_CHARS} characters")


def _check_grammars(request: Mapping[str, Any]) -> None:
    for key in GRAMMARS:
        if key in request and len(json.dumps(request[key])) > MAX_GRAMMAR_CHARS:
            raise RequestError(f"{key} exceeds {MAX_GRAMMAR_CHARS} characters")
