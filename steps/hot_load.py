"""A served model through HTTP: what it serves, whether it has taken the adapters it shall serve, and its answers.

The same for a server on this machine and for a pod; ``steps.adapter_switch`` answers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from steps import files, wanted_adapters
from steps.errors import StepError, TimeLimit
from steps.wanted_adapters import WantedAdapter

POLL_SECONDS = 0.2
TRIES = 4
"""Requests until an answer that tells of a moment's trouble counts as the answer."""
PASSING = (429, 500, 502, 503, 504)


class Gone(StepError):
    """The server has ended."""


def state(address: str, timeout: float = 5.0) -> dict[str, Any]:
    """What the server says of its adapters (``GET /adapters``); empty where nothing answers so."""
    import requests

    try:
        with session() as client:
            answer = client.get(f"{address}/adapters", timeout=timeout)
            told = answer.json() if answer.status_code == 200 else {}
    except (requests.RequestException, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def problem(address: str) -> str:
    """Why the server does not serve the adapters it shall; empty where it does, or still tries for the first time."""
    return str(state(address).get("problem") or "")


def write(file: Path, adapters: Sequence[WantedAdapter]) -> None:
    """Tell a server on this machine which adapters to serve."""
    files.write_text(file, wanted_adapters.write(adapters))


def wait(
    address: str, mark: str, seconds: float, gone: Callable[[], str] = str, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait until the server serves the adapters of ``mark`` (``steps.wanted_adapters.mark``).

    ``gone`` is asked while nothing answers, and tells why nothing will any more, if so.

    Raises:
        Gone: as ``gone`` says.
        StepError: it can't; what it served it goes on serving.
        TimeLimit: it does not within ``seconds``.
    """
    end = time.monotonic() + seconds
    while (told := state(address)).get("reached") != mark:
        if told.get("wanted") == mark and told.get("problem"):
            raise StepError(told["problem"], "the adapters before go on being served")
        if not told and (why := gone()):
            raise Gone(why)
        if time.monotonic() > end:
            raise TimeLimit(f"{address} did not take the adapter within {seconds:.0f} s", "raise the deadline")
        sleep(POLL_SECONDS)


def models(address: str, timeout: float = 5.0) -> list[str]:
    """Names that the server answers to, the base first.

    Raises:
        StepError: it does not say.
    """
    import requests

    try:
        with session() as client:
            listed = client.get(f"{address}/v1/models", timeout=timeout).json()["data"]
        return [str(model["id"]) for model in listed]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise StepError(f"{address} does not list its models: {error}") from None


def complete(
    address: str,
    model: str,
    question: str,
    max_tokens: int,
    timeout: float,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Ask one question through ``/v1/chat/completions`` (greedy, so that the same model gives the same answer).

    Raises:
        StepError: the server answered with an error, or not at all, again and again.
        TimeLimit: it did not within ``timeout`` seconds.
    """
    import requests

    messages = [{"role": "user", "content": question}]
    request = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    end = time.monotonic() + timeout
    for attempt in range(1, TRIES + 1):
        try:
            with session() as client:
                left = max(1.0, end - time.monotonic())
                response = client.post(f"{address}/v1/chat/completions", json=request, timeout=left)
            if response.status_code == 200:
                return str(response.json()["choices"][0]["message"].get("content") or "")
            what = f"{model} answered with HTTP {response.status_code}: {response.text[:500]}"
            passing = response.status_code in PASSING
        except requests.Timeout:
            raise TimeLimit(f"{model} did not answer within {timeout:.0f} s", "raise the deadline") from None
        except (requests.RequestException, ValueError, KeyError, IndexError, TypeError) as error:
            what, passing = f"{model} at {address} did not answer: {error}", True
        if not passing or attempt == TRIES:
            raise StepError(what)
        sleep(2.0 ** (attempt - 1))
    raise AssertionError("the loop above returns or raises")


def session() -> Any:
    """A client of the server: past any proxy, and with the key that vLLM wants once ``VLLM_API_KEY`` is set."""
    import requests

    client = requests.Session()
    client.trust_env = False
    if key := os.environ.get("VLLM_API_KEY"):
        client.headers["Authorization"] = f"Bearer {key}"
    return client
