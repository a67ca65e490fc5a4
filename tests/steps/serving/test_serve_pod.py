from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from tiny_model import save_adapter, save_model

from steps.models.adapter import adapter_digest
from steps.serving import desired_adapters, drain, serving_client
from steps.serving.desired_adapters import DesiredAdapter
from steps.serving.drain import DRAIN_SECONDS


def start(tmp_path: Path, base: Path, file: Path, *flags: str, runtime: str = "transformers") -> subprocess.Popen[str]:
    environment = {**os.environ, "ARGOTUNE_VLLM": "off", "HF_TOKEN": "hf_canary", "ARGOTUNE_ADAPTERS": str(file)}
    environment["ARGOTUNE_ADAPTER_FOLDER"] = str(tmp_path / "pulled")
    command = [sys.executable, "-m", "steps.serving.serve_pod", "--preset", "tiny", "--model", str(base), *flags]
    command += ["--runtime", runtime] if runtime else []
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_pod_serves_its_adapters_without_a_token(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base")
    folder = save_adapter(base, tmp_path / "adapter")
    desired = [DesiredAdapter("tuned", adapter_digest(folder), path=str(folder))]
    file = tmp_path / "adapters.json"
    serving_client.write_adapters(file, desired)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    pod = start(tmp_path, base, file, "--host", "127.0.0.1", "--port", str(port))
    try:
        serving_client.wait_for_adapters(
            address, desired_adapters.config_digest(file.read_text()), 300, lambda: "ended" if pod.poll() else ""
        )
        assert requests.get(f"{address}/ready").status_code == 200
        assert serving_client.list_models(address) == ["tiny", "tuned"]
        assert serving_client.get_state(address)["server"] == "transformers"
        assert serving_client.complete(address, "tuned", "x", 4, 60)
        assert b"hf_canary" not in Path(f"/proc/{pod.pid}/environ").read_bytes(), "the server has the token"
    finally:
        pod.send_signal(signal.SIGTERM)
        output, _ = pod.communicate(timeout=300)
    assert "hf_canary" not in output


def test_an_error_is_the_last_line_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"")
    file = tmp_path / "adapters.json"
    (tmp_path / "empty").mkdir()
    serving_client.write_adapters(file, [DesiredAdapter("tuned", "sha256:" + "0" * 64, path=str(tmp_path / "empty"))])
    pod = start(tmp_path, tmp_path / "base", file)
    output, _ = pod.communicate(timeout=300)
    assert pod.returncode == 2
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: ") and "adapter_config.json" in last
    waits = [line for line in output.splitlines() if line.startswith(("server: ", "fetching "))]
    assert waits == [
        "server: transformers (requested)",
        f"fetching base model {tmp_path / 'base'}",
        f"fetching adapter tuned from {tmp_path / 'empty'}",
    ], "the log does not say what the pod waits for"


def test_a_pod_without_a_usable_vllm_fails_with_the_reason(tmp_path: Path) -> None:
    pod = start(tmp_path, tmp_path / "base", tmp_path / "adapters.json", runtime="")
    output, _ = pod.communicate(timeout=300)
    assert pod.returncode == 2
    assert output.strip().splitlines()[-1].startswith("error: vLLM cannot serve: ARGOTUNE_VLLM is off")


def test_a_pod_whose_secret_has_no_key_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "short").write_text("hunter2")
    monkeypatch.setenv("ARGOTUNE_API_KEYS", str(tmp_path / "keys"))
    pod = start(tmp_path, tmp_path / "base", tmp_path / "adapters.json")
    output, _ = pod.communicate(timeout=300)
    assert pod.returncode == 2
    assert "has no valid API key" in output.strip().splitlines()[-1] and "hunter2" not in output


def test_a_pod_waits_for_its_last_response(monkeypatch: pytest.MonkeyPatch) -> None:
    running = [{"tuned-1": 2}, {"tuned-1": 1}, {}]
    naps: list[float] = []
    monkeypatch.setattr(serving_client, "get_state", lambda _: {"running": running.pop(0)})
    drain.drain(sleep=naps.append)
    assert naps == [drain.ENDPOINT_REMOVAL_SECONDS, 1.0, 1.0] and not running
    now = [0.0]
    monkeypatch.setattr(serving_client, "get_state", lambda _: {"running": {"tuned-1": 1}})
    drain.drain(sleep=lambda seconds: now.__setitem__(0, now[0] + seconds), clock=lambda: now[0])
    assert now[0] == DRAIN_SECONDS
