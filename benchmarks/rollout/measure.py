"""Roll out one adapter after another under steady traffic, and count failed requests.

    python benchmarks/rollout/measure.py                                  # 20 requests/s, 6 rollouts in 60 s
    python benchmarks/rollout/measure.py --model DIRECTORY --rate 2 --tokens 32

A real server (``steps.rollout`` starts vLLM or the server of the transformers library) serves a base model and one
adapter. Clients send requests at a steady rate, regardless of responses; latency is measured from the scheduled time
of a request. Meanwhile the rollout step deploys one adapter after another. A request fails unless one of these
adapters answers it with status 200.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from tiny_model import save_adapter, save_model

from steps.models.adapter import adapter_digest
from steps.rollout import rollout_local
from steps.rollout.settings import Settings
from steps.rollout.step import rollout
from steps.serving import server
from steps.serving.desired_adapters import DesiredAdapter

THREADS = 64
local = threading.local()


@dataclass(frozen=True)
class Answer:
    """Result of one request."""

    due: float
    seconds: float
    problem: str
    model: str


def main() -> None:
    """Measure and print the table."""
    args = parse_arguments()
    os.environ.setdefault("ARGOTUNE_VLLM", "off")
    os.environ.pop("KUBERNETES_SERVICE_HOST", None)
    rollout_local.MAX_TOKENS = args.tokens  # a random model never stops
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = Path(args.model) if args.model else save_model(work / "base")
        adapters = [save_adapter(base, work / f"adapter-{seed}", seed=seed) for seed in range(args.rollouts + 1)]
        settings = Settings(work=work, preset="tiny", model=str(base), adapters=[{"name": "tuned", "path": ""}])
        try:
            print_results(args, *measure(args, settings, adapters))
        finally:
            server.stop(work / "serve" / server.RECORD)
            server.stop(work / "serve" / server.STARTING)


def measure(
    args: argparse.Namespace, settings: Settings, adapters: list[Path]
) -> tuple[list[Answer], list[tuple[float, float]], int]:
    """Return all answers, start and end of each rollout, and the number of server processes."""
    endpoint = deploy(settings, adapters[0])
    known = {DesiredAdapter("tuned", adapter_digest(folder)).version for folder in adapters}
    rollouts, pids = [], {server_record(settings).pid}
    with ThreadPoolExecutor(THREADS) as clients:
        begin = time.monotonic() + 2
        due = [begin + number / args.rate for number in range(int(args.seconds * args.rate))]
        pending = [clients.submit(send, endpoint, at, args.tokens, known) for at in due]
        for number, folder in enumerate(adapters[1:]):
            wait_until(begin + (number + 0.5) * args.seconds / args.rollouts)
            start = time.monotonic()
            assert deploy(settings, folder) == endpoint, "the address changed"
            rollouts.append((start, time.monotonic()))
            pids.add(server_record(settings).pid)
        return [request.result() for request in pending], rollouts, len(pids)


def deploy(settings: Settings, adapter: Path) -> str:
    """Roll out an adapter; return the endpoint."""
    values = settings.__dict__ | {"adapters": [{"name": "tuned", "path": str(adapter)}]}
    return rollout(Settings(**values)).endpoint


def server_record(settings: Settings) -> server.Server:
    record = server.read(settings.work / "serve" / server.RECORD)
    assert record
    return record


def send(endpoint: str, due: float, tokens: int, known: set[str]) -> Answer:
    """Send one request at its scheduled time."""
    wait_until(due)
    session = local.session = getattr(local, "session", None) or requests.Session()
    session.trust_env = False
    messages = [{"role": "user", "content": "What is a pod?"}]
    body = {"model": "tuned", "messages": messages, "max_tokens": tokens, "temperature": 0}
    model, problem = "", ""
    try:
        answer = session.post(f"{endpoint}/v1/chat/completions", json=body, timeout=60)
        model = answer.json()["model"] if answer.status_code == 200 else ""
        problem = "" if model in known else f"HTTP {answer.status_code}: {answer.text[:100]}"
    except (requests.RequestException, ValueError, KeyError) as error:
        problem = type(error).__name__
    return Answer(due, time.monotonic() - due, problem, model)


def wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def print_results(
    args: argparse.Namespace, answers: list[Answer], rollouts: list[tuple[float, float]], servers: int
) -> None:
    """Print the table and the failures, and exit with 1 if there are failures."""
    inside = [a for a in answers if any(start - a.seconds <= a.due <= end for start, end in rollouts)]
    outside = [a for a in answers if a not in inside]
    print("\n| requests | number | failed | p50, ms | p99, ms | slowest, ms |\n|---|---|---|---|---|---|")
    for name, group in (("all", answers), ("while a rollout ran", inside), ("otherwise", outside)):
        times = sorted(answer.seconds * 1000 for answer in group) or [0.0]
        p50, p99 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99))
        failed = sum(bool(answer.problem) for answer in group)
        print(f"| {name} | {len(group)} | {failed} | {p50:.0f} | {p99:.0f} | {times[-1]:.0f} |")
    seconds = [end - start for start, end in rollouts]
    print(f"\n{len(rollouts)} rollouts of {min(seconds):.1f} to {max(seconds):.1f} s, {servers} server process(es), "
          f"{args.rate:g} requests/s, {len({a.model for a in answers if a.model})} adapters answered")  # fmt: skip
    for problem, count in Counter(answer.problem for answer in answers if answer.problem).most_common(5):
        print(f"failed {count} times: {problem}")
    sys.exit(any(answer.problem for answer in answers))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="directory of a base model (default: a tiny random Llama)")
    parser.add_argument("--rate", type=float, default=20, help="requests per second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rollouts", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=8, help="maximum tokens of an answer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
