"""Benchmark of a served model with vLLM's own client (``vllm bench serve``)."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steps.runtime.errors import BadInput, StepError
from steps.runtime.json_text import parse_json
from steps.serving import server, server_command
from steps.serving.benchmark_result import Benchmark, from_record, number
from steps.serving.vllm_probe import Vllm

INPUT_TOKENS, OUTPUT_TOKENS = 2048, 256
"""Tokens of a request of KAITO's benchmark."""
# What `vllm bench serve` does, for a vLLM whose command does not work (see vllm_probe).
CLIENT = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
# Fields of the client's result by ours.
_NUMBERS = {
    "requests": "completed",
    "failed": "failed",
    "seconds": "duration",
    "requests_per_second": "request_throughput",
    "output_tokens_per_second": "output_throughput",
    "total_tokens_per_second": "total_token_throughput",
    "first_token_ms": "median_ttft_ms",
    "first_token_p99_ms": "p99_ttft_ms",
}


@dataclass(frozen=True)
class Load:
    """The requests of a benchmark."""

    requests: int
    concurrency: int
    """Requests at a time."""
    input_tokens: int
    """Random tokens of each prompt."""
    output_tokens: int
    """Tokens of each answer."""


def measure(endpoint: str, model: str, tokenizer: Path, load: Load, api_key: str = "") -> Benchmark:
    """Send random prompts to a served model, and return what the client has measured.

    Args:
        endpoint: root address of the server.
        model: name of a served model.
        tokenizer: folder with the tokenizer of the model.
        load: the requests.
        api_key: key of a client; empty: the server needs none.

    Raises:
        BadInput: no vLLM works on this machine.
        StepError: the client failed, or no request was answered.
    """
    vllm = server_command.find_vllm()
    if not vllm.device:
        fix = "install vLLM (pip install vllm), or set ARGOTUNE_VLLM to the path of vllm"
        raise BadInput(f"the benchmark needs the client of vLLM: {vllm.reason}", fix)
    with tempfile.TemporaryDirectory(prefix="argotune-bench-") as folder:
        result = Path(folder) / "result.json"
        command = build_command(vllm, endpoint, model, tokenizer, load, result)
        done = subprocess.run(
            command,
            env=_environment(endpoint, api_key),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode or not result.is_file():
            cause = server.last_error_in(done.stdout.decode(errors="replace"))
            raise StepError(f"vLLM's benchmark client failed: {cause}", "check that argotune chat gets an answer")
        return from_vllm(result.read_bytes(), model, load)


def build_command(vllm: Vllm, endpoint: str, model: str, tokenizer: Path, load: Load, result: Path) -> list[str]:
    """Return the command of vLLM's client, which writes its result to the file ``result``."""
    program, *words = vllm.program
    flags = {
        "backend": "openai",
        "base-url": endpoint,
        "endpoint": "/v1/completions",
        "model": model,
        "tokenizer": tokenizer,
        "dataset-name": "random",
        "random-input-len": load.input_tokens,
        "random-output-len": load.output_tokens,
        "num-prompts": load.requests,
        "max-concurrency": load.concurrency,
        "num-warmups": 1,
        "ready-check-timeout-sec": 0,
        "percentile-metrics": "ttft",
        "metric-percentiles": "99",
        "result-dir": result.parent,
        "result-filename": result.name,
    }
    client = [program, "bench", "serve"] if words == ["serve"] else [program, "-c", CLIENT]
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    return [*client, *arguments, "--ignore-eos", "--disable-tqdm", "--save-result", "--save-detailed"]


def from_vllm(content: bytes, model: str, load: Load) -> Benchmark:
    """Return the result in a file of vLLM's client.

    Raises:
        StepError: no request was answered, or the file has no such result.
    """
    fix = "use the version of vLLM that is in the serve image: set ARGOTUNE_VLLM to its path"
    try:
        values = parse_json(content)
    except ValueError as error:
        raise StepError(f"the result of vLLM's benchmark client cannot be read: {error}", fix) from None
    values = values if isinstance(values, dict) else {}
    numbers = {name: number(values.get(field)) for name, field in _NUMBERS.items()}
    if missing := [field for name, field in _NUMBERS.items() if numbers[name] is None]:
        raise StepError(f"the result of vLLM's benchmark client has no number {', '.join(missing)}", fix)
    if not numbers["requests"]:
        errors = values.get("errors")
        first = next((line for line in map(_last_line, errors) if line), "") if isinstance(errors, list) else ""
        raise StepError(
            f"none of {load.requests} requests was answered: {first or 'no reason'}",
            "check that argotune chat gets an answer",
        )
    date = datetime.now(UTC).isoformat(timespec="seconds")
    details = {"concurrency": load.concurrency, "input_tokens": load.input_tokens, "output_tokens": load.output_tokens}
    return from_record({"model": model, "date": date, **details, **numbers})


def _last_line(text: Any) -> str:
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _environment(endpoint: str, api_key: str) -> dict[str, str]:
    """Return the environment of the client: offline, without proxies for the server, with the key of its requests."""
    omitted = {"PYTHONPATH", "OPENAI_API_KEY", *server_command.TOKENS}
    environment = {key: value for key, value in os.environ.items() if key not in omitted}
    direct = ",".join(filter(None, [environment.get("NO_PROXY", ""), urlsplit(endpoint).hostname]))
    environment |= {"NO_PROXY": direct, "no_proxy": direct, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return environment | ({"OPENAI_API_KEY": api_key} if api_key else {})
