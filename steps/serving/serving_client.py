"""HTTP client of a model server, local or in a pod: its models, the state of its adapters, and answers."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from steps.models import token_distributions
from steps.models.token_distributions import Position
from steps.runtime import files
from steps.runtime.errors import StepError, TimeLimit, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, retry_after, retry_call
from steps.serving import api_keys, desired_adapters
from steps.serving.desired_adapters import DesiredAdapter

T = TypeVar("T")
POLL_SECONDS = 0.2
RETRY = RetryPolicy(max_attempts=4)
TRANSIENT_STATUS = (429, 500, 502, 503, 504)


class ServerExited(StepError):
    """The server has exited."""


class RequestRejected(StepError):
    """The server rejects a request (HTTP 4xx), so a retry would fail too."""


class Unauthorized(StepError):
    """The server requires another API key."""


@dataclass(frozen=True)
class Answer:
    """The answer of a model."""

    content: str
    reasoning: str
    """Reasoning before the answer, if the server separates it (vLLM's ``reasoning-parser``)."""
    truncated: bool
    """True if the answer ends at the maximum number of tokens."""
    positions: Sequence[Position] = ()
    """Probabilities of its tokens, if they were requested and the server returns them."""


def get_state(address: str, timeout: float = 5.0) -> dict[str, Any]:
    """Return the state of the server's adapters (``GET /adapters``); empty if it does not answer.

    Raises:
        Unauthorized: The server requires another API key.
    """
    import requests

    try:
        with session() as client:
            response = client.get(f"{address}/adapters", timeout=timeout)
            _raise_if_unauthorized(response)
            content = response.json() if response.status_code == 200 else {}
    except (requests.RequestException, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def get_problem(address: str) -> str:
    """Return why the server could not load the desired adapters; "" if it has loaded them or not tried yet."""
    return str(get_state(address).get("problem") or "")


def write_adapters(file: Path, adapters: Sequence[DesiredAdapter]) -> None:
    """Write the desired adapters of a local server."""
    files.write_text(file, desired_adapters.serialize(adapters))


def wait_for_adapters(
    address: str,
    config_digest: str,
    seconds: float,
    exit_reason: Callable[[], str] = str,
    sleep: Sleep = time.sleep,
) -> None:
    """Wait until the server serves the adapters of a configuration.

    Args:
        address: URL of the server.
        config_digest: Digest of the configuration (``steps.serving.desired_adapters.config_digest``).
        seconds: Timeout.
        exit_reason: Called while the server does not answer; returns why it never will, or "".
        sleep: Replaced by tests.

    Raises:
        ServerExited: ``exit_reason`` returns a reason.
        StepError: The server cannot load the adapters; the previous ones stay live.
        TimeLimit: It does not serve them within ``seconds``.
    """
    end = time.monotonic() + seconds
    while (state := get_state(address)).get("reached") != config_digest:
        if state.get("wanted") == config_digest and state.get("problem"):
            raise StepError(state["problem"], "the previous adapters stay live; correct the adapter and run again")
        if not state and (reason := exit_reason()):
            raise ServerExited(reason)
        if time.monotonic() > end:
            raise TimeLimit(f"{address} did not load the adapters within {seconds:.0f} s", "increase the deadline")
        sleep(POLL_SECONDS)


def list_models(address: str, timeout: float = 20.0, sleep: Sleep = time.sleep, api_key: str = "") -> list[str]:
    """Return the names of the models, the base model first.

    Raises:
        StepError: The server does not return a list.
    """

    def request_models(seconds: float) -> list[str]:
        with session(api_key) as client:
            response = client.get(f"{address}/v1/models", timeout=seconds)
        _raise_for_status(response, f"{address}/v1/models returned")
        try:
            return [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise RequestRejected(
                f"{address} returned an invalid list of models: {error}",
                "check that the address is that of a served model",
            ) from None

    return _retry(request_models, address, timeout, sleep)


def get_context(address: str, timeout: float = 20.0, api_key: str = "") -> int:
    """Return the context of the base model in tokens, 0 if it is not reported; vLLM's entry of an adapter has none."""
    import requests

    try:
        with session(api_key) as client:
            listed = client.get(f"{address}/v1/models", timeout=timeout).json()["data"]
        return next((length for item in listed if isinstance(length := item.get("max_model_len"), int)), 0)
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
        return 0


def get_server_kind(address: str, timeout: float = 20.0, sleep: Sleep = time.sleep) -> str:
    """Return the kind that a server reports, ``vllm`` or ``transformers``; ``unknown`` if it reports none.

    Raises:
        StepError: The server does not answer.
    """

    def request_state(seconds: float) -> str:
        with session() as client:
            response = client.get(f"{address}/adapters", timeout=seconds)
        _raise_for_status(response, f"{address}/adapters returned")
        return str(response.json().get("server") or "unknown")

    return _retry(request_state, address, timeout, sleep)


def complete(
    address: str,
    model: str,
    question: str,
    max_tokens: int,
    timeout: float,
    sleep: Sleep = time.sleep,
    api_key: str = "",
) -> str:
    """Return the answer to one question; for errors see ``chat``."""
    messages = [{"role": "user", "content": question}]
    return chat(address, model, messages, max_tokens, timeout, sleep, api_key=api_key).content


def chat(
    address: str,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    max_tokens: int,
    timeout: float,
    sleep: Sleep = time.sleep,
    top_logprobs: int = 0,
    api_key: str = "",
) -> Answer:
    """Return the answer to messages by ``/v1/chat/completions`` (greedy, so that it is deterministic).

    With ``top_logprobs``, the answer has the probabilities of that number of tokens at each position, unless the
    server rejects the request for them.

    Raises:
        Unauthorized: The server requires another API key (see ``session``).
        RequestRejected: The server rejects the request.
        StepError: All attempts fail.
        TimeLimit: The server does not answer within ``timeout`` seconds.
    """
    request = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
    probabilities = {"logprobs": True, "top_logprobs": top_logprobs, "return_tokens_as_token_ids": True}

    def request_answer(seconds: float) -> Answer:
        with session(api_key) as client:
            url = f"{address}/v1/chat/completions"
            response = client.post(url, json=request | (probabilities if top_logprobs else {}), timeout=seconds)
            if top_logprobs and 400 <= response.status_code < 500 and response.status_code not in TRANSIENT_STATUS:
                response = client.post(url, json=request, timeout=seconds)
        _raise_for_status(response, f"{model} returned")
        return _parse_answer(response.json()["choices"][0])

    return _retry(request_answer, f"{model} at {address}", timeout, sleep)


def _raise_for_status(response: Any, subject: str) -> None:
    """Raise the error of a response other than 200."""
    if response.status_code == 200:
        return
    _raise_if_unauthorized(response)
    message = f"{subject} HTTP {response.status_code}: {response.text[:500]}"
    if response.status_code in TRANSIENT_STATUS:
        raise TransientError(message, retry_after=retry_after(response))
    raise RequestRejected(message) if response.status_code < 500 else StepError(message)


def _raise_if_unauthorized(response: Any) -> None:
    if response.status_code == 401:
        fix = f"set {api_keys.CLIENT_VARIABLE} to a key of its Secret, or {api_keys.FOLDER_VARIABLE} to a directory"
        raise Unauthorized(f"{response.url} returned HTTP 401: the API key is missing or not valid", fix)


def _retry(call: Callable[[float], T], subject: str, timeout: float, sleep: Sleep) -> T:
    """Return the result of ``call``, which receives its time limit in seconds; retry transient failures.

    Each attempt has half of the remaining time, the last one all of it, so that a lost response can be requested
    again.
    """
    import requests

    end, attempts, policy = time.monotonic() + timeout, itertools.count(1), RETRY.in_pod()

    def attempt() -> T:
        last, remaining = next(attempts) == policy.max_attempts, end - time.monotonic()
        try:
            return call(max(1.0, remaining if last else remaining / 2))
        except requests.Timeout:
            if last or time.monotonic() >= end:
                raise TimeLimit(f"{subject} did not answer within {timeout:.0f} s", "increase the deadline") from None
            raise TransientError(f"{subject} did not answer", retry_after=0.0) from None
        except (requests.RequestException, ValueError, LookupError, TypeError, AttributeError) as error:
            raise TransientError(f"{subject} did not answer: {error}") from None

    return retry_call(attempt, policy, sleep=lambda seconds: sleep(min(seconds, max(0.0, end - time.monotonic()))))


def _parse_answer(choice: Mapping[str, Any]) -> Answer:
    message = choice["message"]
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""  # the older name first
    positions = token_distributions.from_openai((choice.get("logprobs") or {}).get("content"))
    is_truncated = choice.get("finish_reason") == "length"
    return Answer(str(message.get("content") or ""), str(reasoning), is_truncated, positions)


def session(api_key: str = "") -> Any:
    """Return an HTTP session without proxies, with an API key.

    Args:
        api_key: Key; empty: from the folder ``$ARGOTUNE_API_KEYS``, or else ``$ARGOTUNE_API_KEY`` or vLLM's own.
    """
    import requests

    client = requests.Session()
    client.trust_env = False
    key = api_key or api_keys.read_client_key(os.environ.get(api_keys.FOLDER_VARIABLE, ""))
    key = key or os.environ.get(api_keys.CLIENT_VARIABLE, "") or os.environ.get("VLLM_API_KEY", "")
    if key:
        client.headers["Authorization"] = f"Bearer {key}"
    return client
