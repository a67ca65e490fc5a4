"""Measure compile time, compared with bare Hera, and for many Workspaces in one call.

    python benchmarks/compile/measure.py [--rounds 7] [--workspaces 1000] [EXAMPLE]

The two programs alternate, so that load on the machine affects both; the ratio is that of their medians. CPU time is
printed next to wall time, since it depends less on the load.
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
    parser.add_argument("example", nargs="?", type=Path, help="default: the example with the longest YAML")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workspaces", type=int, default=1000)
    args = parser.parse_args()
    example = args.example or max((ROOT / "examples").glob("*.yaml"), key=lambda path: len(compile_files(path)))
    compare_with_hera(example, args.rounds)
    compile_many(example, args.workspaces)


def compile_files(*files: Path, form: str = "yaml") -> str:
    process = subprocess.run([*COMPILE, "-o", form, *files], capture_output=True, text=True, check=True, cwd=ROOT)
    return process.stdout


def compare_with_hera(example: Path, rounds: int) -> None:
    document = compile_files(example, form="json")
    ours, hera = [], []
    for _ in range(rounds + 1):
        ours.append(measure_command([*COMPILE, str(example)]))
        hera.append(measure_command(BARE, document))
    # The first round fills the page cache.
    wall_ours, cpu_ours = (statistics.median(column) for column in zip(*ours[1:], strict=True))
    wall_hera, cpu_hera = (statistics.median(column) for column in zip(*hera[1:], strict=True))
    print(f"{example.name}, {rounds} rounds         wall       CPU time")
    print(f"argotune compile                 {wall_ours:8.2f} s {cpu_ours:8.2f} s")
    print(f"import hera, from_dict, to_dict  {wall_hera:8.2f} s {cpu_hera:8.2f} s")
    print(f"ratio                            {wall_ours / wall_hera:8.2f}   {cpu_ours / cpu_hera:8.2f}")


def compile_many(example: Path, count: int) -> None:
    text = example.read_text()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number:04}.yaml" for number in range(count)]
        for number, file in enumerate(files):
            renamed = re.sub(r"(kind: Workspace\nmetadata:\n  name: \S+)", rf"\1-{number}", text, count=1)
            file.write_text(renamed)
        wall, cpu = measure_command([*COMPILE, *map(str, files)])
        start_wall, start_cpu = measure_command([*COMPILE, str(files[0])])
    each_wall, each_cpu = (
        1000 * (total - start) / (count - 1) for total, start in ((wall, start_wall), (cpu, start_cpu))
    )
    print(f"\n{count} Workspaces in one call          wall       CPU time")
    print(f"total                            {wall:8.2f} s {cpu:8.2f} s")
    print(f"each, without start-up           {each_wall:8.2f} ms{each_cpu:8.2f} ms")
    print(f"each, with start-up              {1000 * wall / count:8.2f} ms{1000 * cpu / count:8.2f} ms")


def measure_command(command: list[str], text: str = "") -> tuple[float, float]:
    """Return wall time and CPU time of a program, in seconds; it must succeed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command, input=text.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd=ROOT
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
