"""Roll from one adapter to the next under steady traffic, and count what the clients notice.

    python benchmarks/rollout/measure.py                                  # 20 requests/s, 6 rollouts in 60 s
    python benchmarks/rollout/measure.py --model FOLDER --rate 2 --tokens 32

A real server (``steps.rollout`` starts vLLM or that of the transformers library) serves a base model and one adapter;
clients ask it at a steady rate, whether answers come or not, and a latency counts from the moment a request was due.
Meanwhile the rollout step puts one adapter after the other in service. A request fails when it is not answered with
200, or by an adapter that is neither the one before nor the one after.
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
    """What a client saw."""

    due: float
    seconds: float
    problem: str
    model: str


def main() -> None:
    """Measure and print the table."""
    args = arguments()
    os.environ.setdefault("ARGOTUNE_VLLM", "off")
    os.environ.pop("KUBERNETES_SERVICE_HOST", None)
    rollout_local.MAX_TOKENS = args.tokens  # a random model never comes to an end
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = Path(args.model) if args.model else save_model(work / "base")
        adapters = [save_adapter(base, work / f"adapter-{seed}", seed=seed) for seed in range(args.rollouts + 1)]
        given = Settings(work=work, preset="tiny", model=str(base), adapters=[{"name": "tuned", "path": ""}])
        try:
            show(args, *measure(args, given, adapters))
        finally:
            server.stop(work / "serve" / server.RECORD)
            server.stop(work / "serve" / server.STARTING)


def measure(
    args: argparse.Namespace, given: Settings, adapters: list[Path]
) -> tuple[list[Answer], list[tuple[float, float]], int]:
    """All answers, when each rollout began and ended, and how many servers there were."""
    endpoint = put(given, adapters[0])
    known = {DesiredAdapter("tuned", adapter_digest(folder)).version for folder in adapters}
    rollouts, pids = [], {record(given).pid}
    with ThreadPoolExecutor(THREADS) as clients:
        begin = time.monotonic() + 2
        due = [begin + number / args.rate for number in range(int(args.seconds * args.rate))]
        asked = [clients.submit(ask, endpoint, at, args.tokens, known) for at in due]
        for number, folder in enumerate(adapters[1:]):
            wait_until(begin + (number + 0.5) * args.seconds / args.rollouts)
            start = time.monotonic()
            assert put(given, folder) == endpoint, "the address changed"
            rollouts.append((start, time.monotonic()))
            pids.add(record(given).pid)
        return [each.result() for each in asked], rollouts, len(pids)


def put(given: Settings, adapter: Path) -> str:
    """Put an adapter in service; returns the endpoint."""
    values = given.__dict__ | {"adapters": [{"name": "tuned", "path": str(adapter)}]}
    return rollout(Settings(**values)).endpoint


def record(given: Settings) -> server.Server:
    found = server.read(given.work / "serve" / server.RECORD)
    assert found
    return found


def ask(endpoint: str, due: float, tokens: int, known: set[str]) -> Answer:
    """One request at its time."""
    wait_until(due)
    session = local.session = getattr(local, "session", None) or requests.Session()
    session.trust_env = False
    messages = [{"role": "user", "content": "What do you say?"}]
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


def show(args: argparse.Namespace, answers: list[Answer], rollouts: list[tuple[float, float]], servers: int) -> None:
    """The table, and what failed."""
    inside = [a for a in answers if any(start - a.seconds <= a.due <= end for start, end in rollouts)]
    outside = [a for a in answers if a not in inside]
    print("\n| requests | number | failed | p50, ms | p99, ms | slowest, ms |\n|---|---|---|---|---|---|")
    for name, some in (("all", answers), ("while a rollout ran", inside), ("otherwise", outside)):
        times = sorted(answer.seconds * 1000 for answer in some) or [0.0]
        p50, p99 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99))
        failed = sum(bool(answer.problem) for answer in some)
        print(f"| {name} | {len(some)} | {failed} | {p50:.0f} | {p99:.0f} | {times[-1]:.0f} |")
    seconds = [end - start for start, end in rollouts]
    print(f"\n{len(rollouts)} rollouts of {min(seconds):.1f} to {max(seconds):.1f} s, {servers} server process(es), "
          f"{args.rate:g} requests/s, {len({a.model for a in answers if a.model})} adapters answered")  # fmt: skip
    for problem, count in Counter(answer.problem for answer in answers if answer.problem).most_common(5):
        print(f"failed {count} times: {problem}")
    sys.exit(any(answer.problem for answer in answers))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="folder of a base model (default: a tiny random Llama)")
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rollouts", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=8, help="of each answer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
