"""vLLM's own benchmark client against the real vLLM, behind its middleware."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import save_adapter, save_model
from vllm_server import VllmServer

from steps.runtime.errors import StepError
from steps.serving import benchmark, server, serving_client

pytestmark = pytest.mark.slow
SMALL = {"max_model_len": 1024, "max-num-seqs": 4, "enforce-eager": True, "dtype": "float32"}
LOAD = benchmark.Load(requests=6, concurrency=2, input_tokens=48, output_tokens=16)


def test_the_client_measures_an_adapter(vllm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOTUNE_VLLM", vllm)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    base = save_model(tmp_path / "tiny-llama", 1024)
    running = VllmServer(base, tmp_path / "work")
    try:
        running.start(save_adapter(base, tmp_path / "adapter"), server_arguments=SMALL)
        assert serving_client.get_context(running.endpoint) == 1024
        result = benchmark.measure(running.endpoint, "tuned", base, LOAD)
        assert (result.requests, result.failed, result.model) == (6, 0, "tuned")
        # A warm-up request precedes the measurement.
        assert result.output_tokens_per_second == pytest.approx(6 * 16 / result.seconds, rel=0.01)
        assert result.requests_per_second == pytest.approx(6 / result.seconds, rel=0.01)
        assert 0 < result.first_token_ms <= result.first_token_p99_ms < 1000 * result.seconds
        with pytest.raises(StepError, match=r"none of 6 requests was answered: \S+") as caught:
            benchmark.measure(running.endpoint, "missing", base, LOAD)
        assert caught.value.fix
    finally:
        for name in (server.STARTING, server.RECORD):
            server.stop(tmp_path / "work" / "serve" / name)
