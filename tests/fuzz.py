"""Fuzzing of a reader of foreign data: each input is read, or refused with one of the project's errors and a fix.

    fuzz.check("manifest", read, lambda chance: mutate_document(chance, MANIFEST), count)

An input that ends in another exception, uses more than ``MAX_CPU_SECONDS`` or allocates more than ``MAX_BYTES`` fails
the test, with the seed that produces it again. CPU time, not wall time: other processes do not count.
"""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from steps.runtime.errors import StepError
from workflows.errors import InvalidInput

T = TypeVar("T")
NORMAL, SLOW = 300, int(os.environ.get("ARGOTUNE_FUZZ_INPUTS", "10000"))
"""Inputs of a reader in `make test` and in `make test-slow`."""
MAX_CPU_SECONDS = 10.0
MAX_MESSAGE = 20_000
MAX_BYTES = 2 << 30
"""Additional memory of the process while a reader runs."""


def cases(readers: Iterable[str], few: int | Callable[[str], int] = NORMAL, *, parts: int = 1) -> list[Any]:
    """Return the parameters ``kind, count`` of a test: few inputs of each reader, and as a slow test ``SLOW``.

    Args:
        readers: names of readers.
        few: number of inputs in `make test`.
        parts: number of readers that share the inputs of the slow tests.
    """
    counts = {kind: few(kind) if callable(few) else few for kind in readers}
    return [
        *(pytest.param(kind, count, id=kind) for kind, count in counts.items()),
        *(pytest.param(kind, SLOW // parts, id=f"{kind}, many", marks=pytest.mark.slow) for kind in counts),
    ]


class TooSlow(BaseException):
    """A reader used more CPU time than allowed; no reader catches it."""


def check(
    name: str,
    read: Callable[[T], Any],
    create: Callable[[random.Random], T],
    count: int,
    *,
    refusals: tuple[type[Exception], ...] = (),
    min_refused: float = 0.02,
) -> None:
    """Read ``count`` inputs; each must end in a value or a refusal.

    Args:
        name: of the reader; part of each seed.
        read: reads one input.
        create: creates one input.
        count: number of inputs.
        refusals: other errors of the reader's contract than the project's, whose text is shown to the user.
        min_refused: part of the inputs that must be refused, so that the inputs are damaged at all.
    """
    refused, faults = 0, dict[str, str]()
    with _limited_memory(), _without_name_servers():
        for number in range(count):
            seed = f"{name} {number}"
            value = create(random.Random(seed))
            try:
                with limited_cpu():
                    read(value)
            except (StepError, InvalidInput) as error:
                refused += 1
                if problem := _refusal_problem(error):
                    faults.setdefault(problem[:60], f"seed {seed!r}: {problem}")
            except refusals as error:
                refused += 1
                assert str(error), seed
            except (Exception, TooSlow) as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                kind = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
                faults.setdefault(kind, f"seed {seed!r}: {kind}: {str(error)!a:.300}\n  {value!a:.600}")
    assert not faults, "\n".join(faults.values())
    assert refused >= count * min_refused, f"only {refused} of {count} inputs were refused"


def _refusal_problem(error: StepError | InvalidInput) -> str:
    """Return what is wrong with the message or the fix of a refusal; or ""."""
    if isinstance(error, StepError):
        texts = [(error.message, error.fix)]
    else:
        texts = [(problem.message, problem.fix or problem.path) for problem in error.problems]
    for message, fix in texts:
        if not message or not fix:
            return f"no fix for: {message:.300}"
        if re.search(r"unexpected [A-Z_]\w*", message) or "Traceback" in message:
            return f"not a refusal: {message:.300}"
        if len(message) > MAX_MESSAGE:
            return f"{len(message)} characters: {message:.300}"
    return ""


@contextmanager
def limited_cpu() -> Iterator[None]:
    """Raise TooSlow in the main thread after ``MAX_CPU_SECONDS`` of the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {MAX_CPU_SECONDS} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _without_name_servers() -> Iterator[None]:
    """Resolve only addresses and ``localhost``: damaged data has names that a name server takes seconds for."""
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(host, str) and host != "localhost" and not re.fullmatch(r"[\d.]*|[\da-fA-F:.]*:.*", host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve_here)
        yield


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Let allocations beyond the limit fail with MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with open("/proc/self/status") as status:
        used = next(int(line.split()[1]) for line in status if line.startswith("VmData:")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + MAX_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
