"""Measure time and memory of the download step, compared with the `datasets` library.

    python benchmarks/data/measure.py --gigabytes 1
    python benchmarks/data/measure.py --gigabytes 4 --format jsonl
    python benchmarks/data/measure.py --gigabytes 10 --without-datasets

Writes synthetic conversations as parquet, JSON Lines or CSV, prepares them with the download step, and does the same
with `datasets`: load, map to messages, shuffle and split, write parquet. Each runs in a separate process, one after
the other. Disk space required, relative to the files: 2 times for the step, 7 times for `datasets`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

SENTENCES, WORDS = 200_000, 30_000
BATCH_ROWS = 10_000
FILE_BYTES = 400_000_000
MAX_MEMORY = 1_000_000_000
COLUMNS = (
    "",
    "files, MB/s",
    "seconds",
    "CPU seconds",
    "peak memory, MB",
    "anonymous, MB",
    "peak disk, GB",
)
PROBABILITIES = {"system": 0.2, "next question": 0.5}
WITH_DATASETS = """
import sys
from datasets import load_dataset
folder, target, suffix = sys.argv[1:]
reader = {"jsonl": "json"}.get(suffix, suffix)
roles = {"human": "user", "gpt": "assistant", "system": "system"}
def messages(batch):
    if "prompt" in batch:
        pairs = zip(batch["prompt"], batch["completion"], strict=True)
        return {"messages": [[{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in pairs]}
    turns = [[{"role": roles[t["from"]], "content": t["value"]} for t in row] for row in batch["conversations"]]
    return {"messages": turns}
rows = load_dataset(reader, data_files=f"{folder}/*.{suffix}", split="train", cache_dir=f"{target}/cache")
rows = rows.map(messages, batched=True, remove_columns=rows.column_names)
for name, part in rows.train_test_split(test_size=0.1, seed=42).items():
    part.to_parquet(f"{target}/{name}.parquet")
"""


@dataclass(frozen=True)
class Cost:
    """Resources used by a process."""

    seconds: float
    cpu_seconds: float
    """CPU time, which depends less on the load of the machine."""
    memory: int
    """Peak resident bytes, pages of mapped files included."""
    anonymous: int
    """Peak resident bytes without those pages, which the kernel can reclaim."""
    disk: int
    """Peak bytes on disk, without the source."""


def main() -> int:
    args = parse_arguments()
    folder = Path(tempfile.mkdtemp(prefix="data-", dir=args.folder))
    try:
        source = args.source or folder / "source"
        if not args.source:
            write_source(source, int(args.gigabytes * 1e9), args.format, args.seed)
        size = print_header(source, args.format)
        commands = {"argotune download": [sys.executable, "-m", "steps.download", "--source", str(source), "--work"]}
        if not args.without_datasets:
            commands["`datasets` alone"] = [sys.executable, "-c", WITH_DATASETS, str(source)]
        step_memory = 0
        for name, command in commands.items():
            suffix = [args.format] if "datasets" in name else []
            cost = measure([*command, str(folder / "target"), *suffix], folder / "target")
            print(format_row(name, cost, size), flush=True)
            shutil.rmtree(folder / "target")
            step_memory = step_memory or cost.memory
        print(f"\n{'within' if step_memory < MAX_MEMORY else 'NOT WITHIN'} {MAX_MEMORY / 1e6:.0f} MB")
        return 0 if step_memory < MAX_MEMORY else 1
    finally:
        shutil.rmtree(folder)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the files on disk")
    parser.add_argument("--format", choices=["parquet", "jsonl", "csv"], default="parquet", help="format of the files")
    parser.add_argument("--source", type=Path, help="directory of files to use instead of synthetic ones")
    parser.add_argument("--folder", type=Path, help="working directory (default: that of temporary files)")
    parser.add_argument("--without-datasets", action="store_true", help="measure the download step only")
    parser.add_argument("--seed", type=int, default=0, help="seed of the synthetic data")
    return parser.parse_args()


def print_header(source: Path, suffix: str) -> int:
    """Print the contents of the files and the head of the table; return their bytes on disk."""
    size, count = folder_size(source), len(list(source.iterdir()))
    print(f"{size / 1e9:.2f} GB of {suffix} in {count} files; {os.cpu_count()} CPUs\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    return size


def write_source(folder: Path, size: int, suffix: str, seed: int) -> None:
    """Write ``size`` bytes of files."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    sentences = make_sentences(rng)
    written = number = 0
    while written < size:
        path = folder / f"part-{number:04}.{suffix}"
        number += 1
        WRITERS[suffix](path, min(FILE_BYTES, size - written), iter_conversations(sentences, rng))
        written += path.stat().st_size


def iter_conversations(sentences: pa.Array, rng: np.random.Generator) -> Iterator[pa.RecordBatch]:
    while True:
        yield make_conversations(sentences, BATCH_ROWS, rng)


def write_parquet(path: Path, size: int, batches: Iterator[pa.RecordBatch]) -> None:
    first = next(batches)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        writer.write_batch(first)
        while path.stat().st_size < size:
            writer.write_batch(next(batches))


def write_jsonl(path: Path, size: int, batches: Iterator[pa.RecordBatch]) -> None:
    with path.open("w") as file:
        while file.tell() < size:
            file.write("".join(json.dumps(row) + "\n" for row in next(batches).to_pylist()))


def write_csv(path: Path, size: int, batches: Iterator[pa.RecordBatch]) -> None:
    """Write the first question of each conversation and its answer."""
    schema = pa.schema([("prompt", pa.string()), ("completion", pa.string())])
    with path.open("wb") as file, pyarrow.csv.CSVWriter(file, schema) as writer:
        while file.tell() < size:
            conversations = next(batches).column("conversations")
            starts = conversations.offsets[:-1]
            roles, texts = (conversations.values.field(name) for name in ("from", "value"))
            starts = pc.add(starts, pc.equal(roles.take(starts), "system").cast(pa.int32()))
            pair = {"prompt": texts.take(starts), "completion": texts.take(pc.add(starts, 1))}
            writer.write_batch(pa.record_batch(pair, schema=schema))


WRITERS = {"parquet": write_parquet, "jsonl": write_jsonl, "csv": write_csv}


def make_sentences(rng: np.random.Generator) -> pa.Array:
    """Return sentences of random words with the frequency distribution of a language (Zipf)."""
    letters = np.array(list("etaoinshrdlucmfwypvbgkq"))
    words = ["".join(rng.choice(letters, rng.integers(2, 11))) for _ in range(WORDS)]
    share = 1 / np.arange(1, WORDS + 1)
    lengths = rng.integers(5, 21, SENTENCES)
    tokens = pa.array(words).take(pa.array(rng.choice(WORDS, lengths.sum(), p=share / share.sum())))
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32())
    return pc.binary_join_element_wise(pc.binary_join(pa.ListArray.from_arrays(offsets, tokens), " "), ". ", "")


def make_conversations(sentences: pa.Array, count: int, rng: np.random.Generator) -> pa.RecordBatch:
    """Return conversations in ShareGPT format: one or more questions with answers, some with a system message."""
    system = (rng.random(count) < PROBABILITIES["system"]).astype(int)
    pairs = rng.geometric(1 - PROBABILITIES["next question"], count)
    lengths = system + 2 * pairs
    position = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) - np.repeat(system, lengths)
    role = np.where(position < 0, 2, position % 2)
    max_sentences = np.array([4, 26, 3])[role]
    num_sentences = rng.integers(1, max_sentences)
    picked = sentences.take(pa.array(rng.integers(0, len(sentences), num_sentences.sum())))
    value = pc.binary_join(
        pa.ListArray.from_arrays(pa.array(np.concatenate([[0], num_sentences.cumsum()]), pa.int32()), picked), ""
    )
    message = pa.StructArray.from_arrays(
        [pa.array(["human", "gpt", "system"]).take(pa.array(role)), value], ["from", "value"]
    )
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32())
    return pa.record_batch(
        {"conversations": pa.ListArray.from_arrays(offsets, message), "source": pa.repeat("synthetic", count)}
    )


def measure(command: list[str], target: Path) -> Cost:
    """Run a command, and sample its memory and disk usage."""
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    peak = anonymous = disk = samples = 0
    while process.poll() is None:
        memory = resident(process.pid)
        peak, anonymous = max(peak, memory.get("VmHWM", 0)), max(anonymous, memory.get("RssAnon", 0))
        if samples % 10 == 0:
            disk = max(disk, folder_size(target))
        samples += 1
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])} exited with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - started, processor, peak, anonymous, disk)


def resident(pid: int) -> dict[str, int]:
    """Return the bytes of memory by the kernel's names; empty if the process has exited."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.split()[:2] for line in lines if line.endswith("kB")]
    return {name.rstrip(":"): int(value) * 1024 for name, value in pairs}


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a directory; files can appear and disappear meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.stat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return size


def format_row(name: str, cost: Cost, size: int) -> str:
    memory = f"{cost.memory / 1e6:.0f} | {cost.anonymous / 1e6:.0f}"
    rate = f"{size / 1e6 / cost.seconds:.1f}"
    return f"| {name} | {rate} | {cost.seconds:.0f} | {cost.cpu_seconds:.0f} | {memory} | {cost.disk / 1e9:.1f} |"


if __name__ == "__main__":
    sys.exit(main())
