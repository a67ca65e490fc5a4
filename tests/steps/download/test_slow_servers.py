"""Servers that send too little: the transfer ends, resumes by range where the server recovers, else is given up."""

from __future__ import annotations

import random

import pytest
from object_stores import SlowProxy
from parquet_server import ParquetServer
from slow_downloads import kill_mid_transfer

from steps.data import transfer
from steps.data.fetch import fetch_all
from steps.runtime import hosts, speed
from steps.runtime.errors import StepError, TransientError
from steps.runtime.retry import RetryPolicy
from steps.runtime.speed import MinSpeed, SpeedGuard

BODY = random.Random(7).randbytes(8_000_000)


def test_a_byte_at_a_time_is_given_up(tmp_path, parquet_server: ParquetServer, monkeypatch) -> None:
    monkeypatch.setattr(speed, "MIN_SPEED", MinSpeed(100_000, 0.3))
    monkeypatch.setattr(transfer, "RETRY", RetryPolicy(max_attempts=3))
    parquet_server.put("/x.parquet", BODY)
    waits: list[float] = []
    expected = r"stalled: .* 3 consecutive attempts made no progress"
    with (
        SlowProxy(parquet_server.port, budget=1_000_000, trickle=True) as proxy,
        pytest.raises(StepError, match=expected) as raised,
    ):
        url = f"http://127.0.0.1:{proxy.port}/x.parquet"
        fetch_all([url], tmp_path, allow_private_hosts=True, wait=waits.append)
    assert raised.value.exit_code == 1 and len(waits) >= 2
    assert list(tmp_path.glob("*.partial")), "what came is kept for the next attempt"


def test_a_transfer_resumes_where_it_stalled(tmp_path, parquet_server: ParquetServer, monkeypatch) -> None:
    monkeypatch.setattr(speed, "MIN_SPEED", MinSpeed(100_000, 2.0))  # a busy machine does not stall before the budget
    parquet_server.put("/x.parquet", BODY)
    with SlowProxy(parquet_server.port, budget=6_000_000, trickle=True) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/x.parquet"
        [file] = fetch_all([url], tmp_path, allow_private_hosts=True, wait=lambda _: proxy.release())
    assert file.path.read_bytes() == BODY
    assert parquet_server.requests_for("/x.parquet")[1].headers["range"].startswith("bytes=")


def test_a_head_of_a_byte_at_a_time_is_given_up(tmp_path, parquet_server: ParquetServer, monkeypatch) -> None:
    monkeypatch.setattr(hosts, "RESPONSE_SECONDS", 0.2)
    monkeypatch.setattr(transfer, "RETRY", RetryPolicy(max_attempts=2))
    parquet_server.put("/x.parquet", BODY)
    with SlowProxy(parquet_server.port, budget=0, trickle=True) as proxy, pytest.raises(StepError) as raised:
        url = f"http://127.0.0.1:{proxy.port}/x.parquet"
        fetch_all([url], tmp_path, allow_private_hosts=True, wait=lambda _: None)
    assert raised.value.exit_code == 1


def test_a_killed_download_resumes_by_range(tmp_path, parquet_server: ParquetServer) -> None:
    parquet_server.put("/x.parquet", BODY)
    with SlowProxy(parquet_server.port, budget=5_000_000) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/x.parquet"
        kill_mid_transfer(proxy, url, tmp_path)
        [partial] = tmp_path.glob("*.partial")
        assert 0 < partial.stat().st_size < len(BODY)
        proxy.release()
        [file] = fetch_all([url], tmp_path, allow_private_hosts=True)
        assert file.path.read_bytes() == BODY and proxy.sent < len(BODY)


def test_the_guard_measures_windows() -> None:
    now = [0.0]
    guard = SpeedGuard(MinSpeed(1000, 60), clock=lambda: now[0])
    for second in range(1, 601):
        now[0] = second
        guard.add(1001)
    now[0] = 659
    guard.add(59_999)
    now[0] = 660
    with pytest.raises(TransientError, match=r"stalled: 59999 bytes in 60 s \(minimum 1 kB/s\)"):
        guard.add(0)
