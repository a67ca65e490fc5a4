"""How long compiling takes, beside the bare Hera, and for many Workspaces in one call.

    python benchmarks/compile/measure.py [--rounds 7] [--workspaces 1000] [EXAMPLE]

Both programs of a round run right after each other, so that what else the machine does strikes both; the ratio is that
of their medians. Processor time is told besides wall time: it depends less on a busy machine.
"""

import argparse
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMPILE = [sys.executable, "-m", "workflows.cli", "compile"]
BARE = [sys.executable, str(Path(__file__).with_name("bare_hera.py"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", nargs="?", type=Path, help="default: the example that becomes the most YAML")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workspaces", type=int, default=1000)
    asked = parser.parse_args()
    example = asked.example or max((ROOT / "examples").glob("*.yaml"), key=lambda path: len(compiled(path)))
    one(example, asked.rounds)
    many(example, asked.workspaces)


def compiled(*files: Path, form: str = "yaml") -> str:
    done = subprocess.run([*COMPILE, "-o", form, *files], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def one(example: Path, rounds: int) -> None:
    document = compiled(example, form="json")
    ours, hera = [], []
    for _ in range(rounds + 1):
        ours.append(timed([*COMPILE, str(example)]))
        hera.append(timed(BARE, document))
    # The first round fills the disk's cache.
    wall_ours, cpu_ours = (statistics.median(column) for column in zip(*ours[1:], strict=True))
    wall_hera, cpu_hera = (statistics.median(column) for column in zip(*hera[1:], strict=True))
    print(f"{example.name}, {rounds} rounds         wall      processor")
    print(f"argotune compile                 {wall_ours:8.2f} s {cpu_ours:8.2f} s")
    print(f"import hera, from_dict, to_dict  {wall_hera:8.2f} s {cpu_hera:8.2f} s")
    print(f"ratio                            {wall_ours / wall_hera:8.2f}   {cpu_ours / cpu_hera:8.2f}")


def many(example: Path, count: int) -> None:
    text = example.read_text()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number:04}.yaml" for number in range(count)]
        for number, file in enumerate(files):
            renamed = re.sub(r"(kind: Workspace\nmetadata:\n  name: \S+)", rf"\1-{number}", text, count=1)
            file.write_text(renamed)
        wall, cpu = timed([*COMPILE, *map(str, files)])
        start_wall, start_cpu = timed([*COMPILE, str(files[0])])
    each_wall, each_cpu = (
        1000 * (total - start) / (count - 1) for total, start in ((wall, start_wall), (cpu, start_cpu))
    )
    print(f"\n{count} Workspaces in one call          wall      processor")
    print(f"in all                           {wall:8.2f} s {cpu:8.2f} s")
    print(f"each, start-up apart             {each_wall:8.2f} ms{each_cpu:8.2f} ms")
    print(f"each, start-up shared            {1000 * wall / count:8.2f} ms{1000 * cpu / count:8.2f} ms")


def timed(command: list[str], text: str = "") -> tuple[float, float]:
    """Wall time and processor time of a program that must succeed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command, input=text.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd=ROOT
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
