"""Log-probabilities in the chat completions of the transformers server, which its library ignores.

A forward pass over the finished answer scores its tokens, in the form of OpenAI's API. ``return_tokens_as_token_ids``
writes ``token_id:ID`` instead of the text of a token, as with vLLM.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from steps.models import token_distributions
from steps.models.token_distributions import TOP, Position
from steps.serving.asgi import error_response

KEYS = ("logprobs", "top_logprobs", "return_tokens_as_token_ids")


@dataclass(frozen=True)
class Requested:
    """The log-probabilities that a request asks for."""

    top: int
    as_ids: bool


_requested: ContextVar[Requested | None] = ContextVar("requested_logprobs", default=None)


def parse_request(body: dict[str, Any]) -> Requested | None:
    """Remove the options from the body of a request and return them; None if it wants no log-probabilities.

    Raises:
        ValueError: A value is invalid, or the response is streamed.
    """
    enabled, top, as_ids = (body.pop(key, None) for key in KEYS)
    for key, value in ((KEYS[0], enabled), (KEYS[2], as_ids)):
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{key} must be true or false")
    if top is not None and (type(top) is not int or not 0 <= top <= TOP):
        raise ValueError(f"top_logprobs must be an integer from 0 to {TOP}")
    if top and not enabled:
        raise ValueError("top_logprobs requires logprobs: true")
    if not enabled:
        return None
    if body.get("stream"):
        raise ValueError("logprobs is not supported with stream: true")
    return Requested(top or 0, bool(as_ids))


class LogprobsHandler:
    """Mixin for the library's ``ChatCompletionHandler``."""

    async def handle_request(self, body: dict[str, Any], request_id: str) -> Any:
        """Answer a request, with log-probabilities if it asks for them."""
        try:
            token = _requested.set(parse_request(body))
        except ValueError as error:
            return error_response(HTTPStatus.BAD_REQUEST, str(error))
        try:
            return await super().handle_request(body, request_id)  # type: ignore[misc]
        finally:
            _requested.reset(token)

    async def _non_streaming(
        self, request_id: str, model: Any, processor: Any, model_id: str, inputs: Any, config: Any, *, gen_manager: Any
    ) -> Any:
        from fastapi.responses import JSONResponse

        requested, recorder = _requested.get(), _Recorder(gen_manager)
        response = await super()._non_streaming(  # type: ignore[misc]
            request_id, model, processor, model_id, inputs, config, gen_manager=recorder
        )
        if requested is None:
            return response
        prompt = inputs["input_ids"][0].tolist()
        positions = await gen_manager.async_submit(
            token_distributions.score, model, prompt, recorder.generated, max(1, requested.top)
        )
        content = json.loads(bytes(response.body))
        entries = [_entry(one, processor, requested) for one in positions]
        content["choices"][0]["logprobs"] = {"content": entries}
        return JSONResponse(content)


class _Recorder:
    """A generation manager that remembers the generated ids."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.generated: list[int] = []

    async def generate_non_streaming(self, *args: Any, **kwargs: Any) -> Any:
        text, length, generated = await self.manager.generate_non_streaming(*args, **kwargs)
        self.generated = [int(token) for token in generated]
        return text, length, generated


def _entry(position: Position, processor: Any, requested: Requested) -> dict[str, Any]:
    top = [_token(token, value, processor, requested) for token, value in position.logprobs.items()]
    return _token(position.token, position.logprob, processor, requested) | {"top_logprobs": top[: requested.top]}


def _token(token: int, logprob: float, processor: Any, requested: Requested) -> dict[str, Any]:
    text = processor.decode([token])
    name = f"token_id:{token}" if requested.as_ids else text
    return {"token": name, "logprob": logprob, "bytes": list(text.encode())}
