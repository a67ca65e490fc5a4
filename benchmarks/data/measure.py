"""How much memory and time it takes to prepare data, against the `datasets` library alone.

    python benchmarks/data/measure.py --gigabytes 1
    python benchmarks/data/measure.py --gigabytes 10 --without-datasets

Writes synthetic conversations as parquet, prepares them with the download step, and does the same with `datasets`:
load, map to messages, split with shuffling, write parquet. Each runs in a process of its own, one after the other. The
folder needs room: about twice the parquet for the step, seven times for `datasets`.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SENTENCES, WORDS = 200_000, 30_000
ROWS_AT_ONCE = 10_000
FILE_BYTES = 400_000_000
MAX_MEMORY = 1_000_000_000
COLUMNS = (
    "",
    "parquet, MB/s",
    "uncompressed, MB/s",
    "seconds",
    "of processors",
    "peak memory, MB",
    "of it anonymous, MB",
    "peak disk, GB",
)
SOMETIMES = {"system": 0.2, "again": 0.5}
WITH_DATASETS = """
import sys
from datasets import load_dataset
folder, target = sys.argv[1:]
roles = {"human": "user", "gpt": "assistant", "system": "system"}
def messages(batch):
    turns = [[{"role": roles[t["from"]], "content": t["value"]} for t in row] for row in batch["conversations"]]
    return {"messages": turns}
rows = load_dataset("parquet", data_files=f"{folder}/*.parquet", split="train", cache_dir=f"{target}/cache")
rows = rows.map(messages, batched=True, remove_columns=["conversations", "source"])
for name, part in rows.train_test_split(test_size=0.1, seed=42).items():
    part.to_parquet(f"{target}/{name}.parquet")
"""


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    seconds: float
    processor: float
    """Seconds of processor time, which other work on the machine changes less."""
    memory: int
    """Most bytes resident, pages of mapped files counted."""
    anonymous: int
    """Most bytes resident without those pages, which the kernel can take back."""
    disk: int
    """Most bytes on disk at a time, without the source."""


def main() -> int:
    given = arguments()
    place = Path(tempfile.mkdtemp(prefix="data-", dir=given.folder))
    try:
        source = given.source or place / "source"
        if not given.source:
            write_source(source, int(given.gigabytes * 1e9), given.seed)
        size, text = tell(source)
        ways = {"argotune download": [sys.executable, "-m", "steps.download", "--source", str(source), "--work"]}
        if not given.without_datasets:
            ways["`datasets` alone"] = [sys.executable, "-c", WITH_DATASETS, str(source)]
        most = 0
        for name, command in ways.items():
            cost = measured([*command, str(place / "target")], place / "target")
            print(line(name, cost, size, text), flush=True)
            shutil.rmtree(place / "target")
            most = most or cost.memory
        print(f"\n{'within' if most < MAX_MEMORY else 'NOT WITHIN'} {MAX_MEMORY / 1e6:.0f} MB")
        return 0 if most < MAX_MEMORY else 1
    finally:
        shutil.rmtree(place)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="parquet to prepare, as it is on disk")
    parser.add_argument("--source", type=Path, help="folder of parquet files to prepare, instead of writing some")
    parser.add_argument("--folder", type=Path, help="where there is room (default: that of temporary files)")
    parser.add_argument("--without-datasets", action="store_true", help="measure the download step only")
    parser.add_argument("--seed", type=int, default=0, help="of the data")
    return parser.parse_args()


def tell(source: Path) -> tuple[int, int]:
    """Print what is in the files, and the head of the table; bytes on disk and uncompressed."""
    footers = [pq.read_metadata(path) for path in source.iterdir()]
    rows = sum(footer.num_rows for footer in footers)
    text = sum(footer.row_group(n).total_byte_size for footer in footers for n in range(footer.num_row_groups))
    size = folder_size(source)
    print(
        f"{size / 1e9:.2f} GB of parquet in {len(footers)} files: {rows:,} conversations, {text / 1e9:.1f} GB "
        f"uncompressed; {os.cpu_count()} processors\n"
    )
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    return size, text


def write_source(folder: Path, size: int, seed: int) -> None:
    """Write so many bytes of parquet."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    sentences = some_sentences(chance)
    written = number = 0
    while written < size:
        path = folder / f"part-{number:04}.parquet"
        number += 1
        with pq.ParquetWriter(path, conversations(sentences, 1, chance).schema, compression="zstd") as writer:
            while path.stat().st_size < min(FILE_BYTES, size - written):
                writer.write_batch(conversations(sentences, ROWS_AT_ONCE, chance))
        written += path.stat().st_size


def some_sentences(chance: np.random.Generator) -> pa.Array:
    """Sentences of made-up words, some of which are much more frequent than others, as in any language (Zipf)."""
    letters = np.array(list("etaoinshrdlucmfwypvbgkq"))
    words = ["".join(chance.choice(letters, chance.integers(2, 11))) for _ in range(WORDS)]
    share = 1 / np.arange(1, WORDS + 1)
    lengths = chance.integers(5, 21, SENTENCES)
    said = pa.array(words).take(pa.array(chance.choice(WORDS, lengths.sum(), p=share / share.sum())))
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32())
    return pc.binary_join_element_wise(pc.binary_join(pa.ListArray.from_arrays(offsets, said), " "), ". ", "")


def conversations(sentences: pa.Array, count: int, chance: np.random.Generator) -> pa.RecordBatch:
    """Conversations as ShareGPT writes them: one to some questions with answers, a system message before some."""
    system = (chance.random(count) < SOMETIMES["system"]).astype(int)
    pairs = chance.geometric(1 - SOMETIMES["again"], count)
    lengths = system + 2 * pairs
    place = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) - np.repeat(system, lengths)
    role = np.where(place < 0, 2, place % 2)
    longest = np.array([4, 26, 3])[role]
    said = chance.integers(1, longest)
    picked = sentences.take(pa.array(chance.integers(0, len(sentences), said.sum())))
    value = pc.binary_join(
        pa.ListArray.from_arrays(pa.array(np.concatenate([[0], said.cumsum()]), pa.int32()), picked), ""
    )
    message = pa.StructArray.from_arrays(
        [pa.array(["human", "gpt", "system"]).take(pa.array(role)), value], ["from", "value"]
    )
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32())
    return pa.record_batch(
        {"conversations": pa.ListArray.from_arrays(offsets, message), "source": pa.repeat("made up", count)}
    )


def measured(command: list[str], target: Path) -> Cost:
    """Run a command and look at it from outside."""
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    peak = anonymous = disk = looks = 0
    while process.poll() is None:
        figures = resident(process.pid)
        peak, anonymous = max(peak, figures.get("VmHWM", 0)), max(anonymous, figures.get("RssAnon", 0))
        if looks % 10 == 0:
            disk = max(disk, folder_size(target))
        looks += 1
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - started, processor, peak, anonymous, disk)


def resident(pid: int) -> dict[str, int]:
    """Bytes of memory by the kernel's names; nothing of a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.split()[:2] for line in lines if line.endswith("kB")]
    return {name.rstrip(":"): int(value) * 1024 for name, value in pairs}


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder; files may come and go meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.stat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return size


def line(name: str, cost: Cost, size: int, text: int) -> str:
    rates = f"{size / 1e6 / cost.seconds:.1f} | {text / 1e6 / cost.seconds:.0f}"
    memory = f"{cost.memory / 1e6:.0f} | {cost.anonymous / 1e6:.0f}"
    return f"| {name} | {rates} | {cost.seconds:.0f} | {cost.processor:.0f} | {memory} | {cost.disk / 1e9:.1f} |"


if __name__ == "__main__":
    sys.exit(main())
