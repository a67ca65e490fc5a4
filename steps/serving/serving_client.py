"""A served model through HTTP: what it serves, whether it has taken the adapters it shall serve, and its answers.

The same for a server on this machine and for a pod; ``steps.serving.adapter_reloader`` answers.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from steps.runtime import files
from steps.runtime.errors import StepError, TimeLimit, TransientError
from steps.runtime.retry import RetryPolicy, Sleep, retry_after, retry_call
from steps.serving import desired_adapters
from steps.serving.desired_adapters import DesiredAdapter

T = TypeVar("T")
POLL_SECONDS = 0.2
RETRY = RetryPolicy(max_attempts=4)
PASSING = (429, 500, 502, 503, 504)


class ServerExited(StepError):
    """The server has ended."""


class RequestRejected(StepError):
    """The server does not take a request (HTTP 4xx), so that asking again is of no use."""


@dataclass(frozen=True)
class Answer:
    """What a model answers."""

    content: str
    reasoning: str
    """What it said to itself before, where the server tells that apart (vLLM's ``reasoning-parser``)."""
    truncated: bool
    """Whether it would have gone on."""


def get_state(address: str, timeout: float = 5.0) -> dict[str, Any]:
    """What the server says of its adapters (``GET /adapters``); empty where nothing answers so."""
    import requests

    try:
        with session() as client:
            answer = client.get(f"{address}/adapters", timeout=timeout)
            told = answer.json() if answer.status_code == 200 else {}
    except (requests.RequestException, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def get_problem(address: str) -> str:
    """Why the server does not serve the adapters it shall; empty where it does, or still tries for the first time."""
    return str(get_state(address).get("problem") or "")


def write_adapters(file: Path, adapters: Sequence[DesiredAdapter]) -> None:
    """Tell a server on this machine which adapters to serve."""
    files.write_text(file, desired_adapters.serialize(adapters))


def wait_for_adapters(
    address: str, mark: str, seconds: float, gone: Callable[[], str] = str, sleep: Sleep = time.sleep
) -> None:
    """Wait until the server serves the adapters of ``mark`` (``steps.serving.desired_adapters.config_digest``).

    ``gone`` is asked while nothing answers, and tells why nothing will any more, if so.

    Raises:
        ServerExited: as ``gone`` says.
        StepError: it can't; what it served it goes on serving.
        TimeLimit: it does not within ``seconds``.
    """
    end = time.monotonic() + seconds
    while (told := get_state(address)).get("reached") != mark:
        if told.get("wanted") == mark and told.get("problem"):
            raise StepError(told["problem"], "the adapters before go on being served")
        if not told and (why := gone()):
            raise ServerExited(why)
        if time.monotonic() > end:
            raise TimeLimit(f"{address} did not take the adapter within {seconds:.0f} s", "raise the deadline")
        sleep(POLL_SECONDS)


def list_models(address: str, timeout: float = 20.0, sleep: Sleep = time.sleep) -> list[str]:
    """Names that the server answers to, the base first.

    Raises:
        StepError: it does not say.
    """

    def listed(seconds: float) -> list[str]:
        with session() as client:
            response = client.get(f"{address}/v1/models", timeout=seconds)
        _refuse(response, f"{address} lists no models:")
        try:
            return [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise RequestRejected(f"{address} does not list its models: {error}") from None

    return _retry(listed, address, timeout, sleep)


def complete(
    address: str,
    model: str,
    question: str,
    max_tokens: int,
    timeout: float,
    sleep: Sleep = time.sleep,
) -> str:
    """The answer to one question; raises as ``ask`` says."""
    return chat(address, model, [{"role": "user", "content": question}], max_tokens, timeout, sleep).content


def chat(
    address: str,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    max_tokens: int,
    timeout: float,
    sleep: Sleep = time.sleep,
) -> Answer:
    """Ask through ``/v1/chat/completions`` (greedy, so that the same model gives the same answer).

    Raises:
        RequestRejected: the server does not take the request.
        StepError: it answered with an error, or not at all, again and again.
        TimeLimit: it did not within ``timeout`` seconds.
    """
    request = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}

    def answered(seconds: float) -> Answer:
        with session() as client:
            response = client.post(f"{address}/v1/chat/completions", json=request, timeout=seconds)
        _refuse(response, f"{model} answered with")
        return _answer(response.json()["choices"][0])

    return _retry(answered, f"{model} at {address}", timeout, sleep)


def _refuse(response: Any, who: str) -> None:
    """Raise what an answer other than 200 means."""
    if response.status_code == 200:
        return
    what = f"{who} HTTP {response.status_code}: {response.text[:500]}"
    if response.status_code in PASSING:
        raise TransientError(what, retry_after=retry_after(response))
    raise RequestRejected(what) if response.status_code < 500 else StepError(what)


def _retry(call: Callable[[float], T], who: str, timeout: float, sleep: Sleep) -> T:
    """Return the result of ``call``, which receives its own time limit in seconds; retry temporary failures.

    Each attempt has half of the remaining time, the last one all of it, so that a lost response can be requested
    again.
    """
    import requests

    end, attempts = time.monotonic() + timeout, itertools.count(1)

    def attempt() -> T:
        last, remaining = next(attempts) == RETRY.max_attempts, end - time.monotonic()
        try:
            return call(max(1.0, remaining if last else remaining / 2))
        except requests.Timeout:
            if last or time.monotonic() >= end:
                raise TimeLimit(f"{who} did not answer within {timeout:.0f} s", "raise the deadline") from None
            raise TransientError(f"{who} did not answer", retry_after=0.0) from None
        except (requests.RequestException, ValueError, KeyError, IndexError, TypeError) as error:
            raise TransientError(f"{who} did not answer: {error}") from None

    return retry_call(attempt, RETRY, sleep=lambda seconds: sleep(min(seconds, max(0.0, end - time.monotonic()))))


def _answer(choice: Mapping[str, Any]) -> Answer:
    said = choice["message"]
    reasoning = said.get("reasoning_content") or said.get("reasoning") or ""  # the older name first
    return Answer(str(said.get("content") or ""), str(reasoning), choice.get("finish_reason") == "length")


def session() -> Any:
    """A client of the server: past any proxy, and with the key that vLLM wants once ``VLLM_API_KEY`` is set."""
    import requests

    client = requests.Session()
    client.trust_env = False
    if key := os.environ.get("VLLM_API_KEY"):
        client.headers["Authorization"] = f"Bearer {key}"
    return client
