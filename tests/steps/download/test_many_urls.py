"""The work of a download's preparation grows with the number of URLs, and not with its square."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steps.data import fetch
from steps.data.locations.http_file import HttpFile
from steps.data.transfer import Target
from steps.runtime.errors import BadInput
from workflows.spec import urls as url_rules
from workflows.spec.findings import Findings
from workflows.spec.source import Source


def count_calls(action: Callable[[], Any]) -> int:
    """Return the number of calls of Python and C functions."""
    calls = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def urls(count: int) -> list[str]:
    return [f"https://data.example/{number}.parquet?sig={number}" for number in range(count)]


def prepare(count: int) -> None:
    fetch._parse_locations(urls(count))
    findings = Findings(Source("a.yaml"))
    for number, url in enumerate(urls(count)):
        url_rules.check(url, f"urls[{number}]", False, findings)


def reject(count: int) -> None:
    targets = [Target(HttpFile(url, url), "", Path("/x") / url[-1:]) for url in urls(count)]
    with pytest.raises(BadInput, match="several locations"):
        fetch._reject_duplicates(targets)


@pytest.mark.parametrize("action", [prepare, reject])
def test_ten_times_the_urls_are_ten_times_the_work(action: Callable[[int], None]) -> None:
    action(100)  # imports and caches
    assert count_calls(lambda: action(1000)) < 12 * count_calls(lambda: action(100))
