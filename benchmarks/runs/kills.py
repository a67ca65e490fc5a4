"""Kill local runs at random moments, resume each, and compare adapter, report and files with an undisturbed run.

    python benchmarks/runs/kills.py [KILLS] [SEED] [KILLS_PER_RUN]     # 300 kills: about an hour on one core

A small random model and 8 rows; all steps from preflight to the exit handler are the real ones, in their own
processes. Each SIGKILL ends the runner, a step, or both.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from random_kills import Kill, kill_and_resume, run_reference  # noqa: E402
from small_runs import make_home  # noqa: E402


def main() -> None:
    """Kill, and print where the kills hit and which runs differ."""
    num_kills, seed, per_run = (int(word) for word in sys.argv[1:] + ["300", "1", "8"][len(sys.argv) - 1 :])
    rng = random.Random(seed)
    kills: list[Kill] = []
    failures: list[str] = []
    started, runs = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = make_home(folder / "home")
        reference = run_reference(folder / "undisturbed", home)
        print(f"undisturbed: {reference.seconds:.1f} s, adapter {reference.adapter}", flush=True)
        while len(kills) < num_kills:
            runs += 1
            try:
                for kill in kill_and_resume(
                    folder / str(runs), home, reference, min(per_run, num_kills - len(kills)), rng
                ):
                    kills.append(kill)
                    print(f"run {runs}: {kill.target}, {kill.aim}: {kill.place}", flush=True)
            except AssertionError as error:
                failures.append(f"run {runs}: {error}")
                print(failures[-1], flush=True)
    _print_summary(kills, runs, time.monotonic() - started)
    if failures:
        raise SystemExit(f"{len(failures)} of {runs} runs differ from the undisturbed one")
    print(f"all {runs} runs have the adapter, the report and the files of the undisturbed one")


def _print_summary(kills: list[Kill], runs: int, seconds: float) -> None:
    print(f"\n{len(kills)} kills of {runs} runs in {seconds / 60:.0f} minutes")
    for title, names in (("target", [kill.target for kill in kills]), ("place", [kill.place for kill in kills])):
        for name, count in Counter(names).most_common():
            print(f"{title}: {name}: {count}")


if __name__ == "__main__":
    main()
