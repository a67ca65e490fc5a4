"""Measure time and memory of a push, compared with skopeo for the same layout.

    python benchmarks/registry/push.py [--megabytes 200] [--rounds 5]

Each round starts two empty registries and pushes the same adapter image to each: with argotune in a separate Python
process (start-up included), and with ``skopeo copy``. Requires docker-registry and skopeo.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from registry_fixture import serve_registry  # noqa: E402

from steps.oci import oci_layout  # noqa: E402

MB = 1_000_000
MAX_TIME_RATIO, MAX_MEMORY = 1.3, 150
PUSH = """
import sys
from pathlib import Path
from steps.oci import reference, registry
registry.push_image(Path(sys.argv[1]), reference.parse(sys.argv[2]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        layout = make_layout(work, args.megabytes)
        print(f"adapter of {args.megabytes} MB, {os.cpu_count()} CPUs; seconds, and peak memory of the client in MB")
        print(f"{'round':>5} {'argotune':>9} {'skopeo':>9} {'ratio':>6} {'memory':>7} {'skopeo':>7}")
        rounds = [run_round(work, layout, number) for number in range(1, args.rounds + 1)]
    ours = statistics.median(row[0] for row in rounds)
    theirs = statistics.median(row[1] for row in rounds)
    memory = max(row[2] for row in rounds)
    print(f"{'median':>5} {ours:9.2f} {theirs:9.2f} {ours / theirs:6.2f} {memory:7.0f}")
    is_within = ours / theirs <= MAX_TIME_RATIO and memory < MAX_MEMORY
    print(f"{'within' if is_within else 'NOT WITHIN'} {MAX_TIME_RATIO} x skopeo's time and {MAX_MEMORY} MB")
    return 0 if is_within else 1


def make_layout(work: Path, megabytes: int) -> Path:
    """Write an adapter image of random bytes, which do not compress, as weights."""
    adapter = work / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with (adapter / "adapter_model.safetensors").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MB))
    oci_layout.build_image(adapter, work / "image", "1.0", {})
    return work / "image"


def run_round(work: Path, layout: Path, number: int) -> tuple[float, float, float]:
    """Return the seconds of both and the memory of argotune; the order alternates between rounds."""
    with (
        serve_registry(work / f"ours-{number}") as ours,
        serve_registry(work / f"theirs-{number}") as theirs,
    ):
        push = [sys.executable, "-c", PUSH, layout, f"{ours.address}/bench:1.0"]
        copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
        copy += [f"oci:{layout}:1.0", f"docker://{theirs.address}/bench:1.0"]
        commands = {"ours": push, "theirs": copy}
        order = ["ours", "theirs"] if number % 2 else ["theirs", "ours"]
        results = {name: measure(commands[name]) for name in order}
    (seconds, memory), (other, other_memory) = results["ours"], results["theirs"]
    print(
        f"{number:5} {seconds:9.2f} {other:9.2f} {seconds / other:6.2f} {memory:7.0f} {other_memory:7.0f}", flush=True
    )
    return seconds, other, memory


def measure(command: list[str | Path]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in MB, as counted by the kernel."""
    os.sync()
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed")
    return seconds, usage.ru_maxrss * 1024 / MB


if __name__ == "__main__":
    sys.exit(main())
