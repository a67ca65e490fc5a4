"""Download the training data from URLs, a directory or an image; validate, normalize and split it."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.data import fetch, near_duplicates, row_formats, row_messages
from steps.data.formats import conversion
from steps.download import resampling, rows
from steps.download.row_shuffle import RowBuffer
from steps.download.settings import Result, Settings
from steps.download.sources import Source, collect_sources, has_changed, weights_of
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.tune import dpo

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FILES_SHOWN = 3


def download(settings: Settings) -> Result:
    """Fetch, check, normalize, shuffle and split the data; write `dataset/` with `manifest.json` last.

    Raises:
        BadInput: all invalid settings, URLs, files or rows; or no space left.
        StepError: unreachable servers.
    """
    dataset = settings.work / "dataset"
    raw = dataset / "raw"
    sources: list[Source] = []
    try:
        sources = collect_sources(settings, raw)
        return _prepare(settings, sources, dataset)
    except BadInput as error:
        # The next attempt must download the files that the user has fixed.
        used = error.invalid_files if isinstance(error, rows.UnusableData) else [source.path for source in sources]
        fetch.delete_downloads([path for path in used if raw in path.parents])
        raise
    finally:
        _remove_if_empty(*{raw / source.input.name for source in sources})
        _remove_if_empty(raw, dataset)


def outputs_intact(settings: Settings, result: Result) -> bool:
    """Return True if the dataset is on disk as recorded, and the files of mounted folders have not changed."""
    dataset = settings.work / "dataset"
    manifest = json.loads((dataset / "manifest.json").read_text())
    if manifest["data_digest"] != result.data_digest:
        return False
    if has_changed(settings, manifest["sources"]):
        return False
    return all(files.sha256(dataset / name) == digest for name, digest in manifest["files"].items())


def _prepare(settings: Settings, sources: list[Source], dataset: Path) -> Result:
    data = _to_parquet(sources, dataset / "converted")
    weights = [] if settings.sample else weights_of(settings, sources)
    data_format = rows.detect_common_format(data)
    dpo.check_data(settings.objective, data_format == "preference")
    counts = [rows.count_rows([file]) for file in data]
    name = ", ".join(file.name for file in data[:MAX_FILES_SHOWN]) + (", ..." if len(data) > MAX_FILES_SHOWN else "")
    train, held_out = rows.split(sum(counts), settings.eval_split, settings.shuffle, settings.seed, name)
    weight_facts: list[dict[str, Any]] = [{}] * len(data)
    if weights:
        train, rows_per_file = resampling.resample(train, counts, weights, settings.shuffle, settings.seed)
        weight_facts = [
            {"weight": weight, "train_rows": count} for weight, count in zip(weights, rows_per_file, strict=True)
        ]
    parts = {"train.parquet": len(train)} | ({"eval.parquet": len(held_out)} if len(held_out) else {})
    placement = resampling.RowPlacement(train, held_out, sum(counts))
    schema = row_messages.output_schema(data_format, full=rows.has_message_fields(data))
    normalized = _write_rows(data, schema, placement, parts, dataset)
    if normalized.not_learned == sum(counts):
        raise BadInput(
            f"none of the {sum(counts)} rows has a message to learn: all have weight 0", "set weight 1 on some answers"
        )
    split = {"eval_split": settings.eval_split, "shuffle": settings.shuffle, "seed": settings.seed}
    content: dict[str, Any] = {"files": [source.sha256 for source in sources], "split": split}
    if settings.columns:
        content["columns"] = settings.columns
    if named := [{"name": data.name, "columns": data.columns} for data in settings.inputs]:
        content["inputs"] = [named, [source.input.name for source in sources]]
    if weights:
        content["weights"] = weights
    digest = files.sha256_text(json.dumps(content, sort_keys=True))
    result = Result(rows=len(train), eval_rows=len(held_out), data_digest=digest, data_format=data_format)
    duplicates, leaked = rows.count_duplicates(normalized.digests, train, held_out)
    manifest: dict[str, Any] = asdict(result) | {
        "sources": [
            {"from": source.location, "size": source.size, "sha256": source.sha256, "rows": count, **weight}
            | ({"input": source.input.name} if source.input.name else {})
            for source, count, weight in zip(sources, normalized.counts, weight_facts, strict=True)
        ],
        "split": split,
        "files": {name: files.sha256(dataset / name) for name in parts},
        "duplicate_rows": duplicates,
        "held_out_rows_in_train": leaked,
        "unused_columns": normalized.unused,
        "rows_not_learned": normalized.not_learned,
    }
    if settings.inputs:
        names = [source.input.name for source in sources]
        trained, kept = (resampling.count_per_file(counts, part) for part in (train, held_out))
        manifest["inputs"] = _count_per_input(names, counts, trained, kept)
    near = near_duplicates.count_near_duplicates(dataset / "train.parquet", dataset / "eval.parquet")
    manifest["near_duplicates"] = asdict(near)
    files.write_json(dataset / "manifest.json", manifest)
    shutil.rmtree(dataset / "converted", ignore_errors=True)
    _print_summary(result, manifest)
    return result


def _write_rows(
    data: list[rows.DataFile],
    schema: pa.Schema,
    placement: resampling.RowPlacement,
    parts: dict[str, int],
    dataset: Path,
) -> rows.NormalizedRows:
    """Normalize the rows, and write them in their new order: ``parts`` rows to each file."""
    dataset.mkdir(parents=True, exist_ok=True)
    with closing(RowBuffer(dataset / ".rows.arrow.partial", schema)) as row_buffer:

        def keep(batch: pa.RecordBatch) -> None:
            for copies, positions in placement.place(batch):
                row_buffer.add(copies, positions)

        normalized = rows.normalize(data, keep)
        # Without a manifest the dataset counts as incomplete, so remove it before writing.
        (dataset / "manifest.json").unlink(missing_ok=True)
        (dataset / "eval.parquet").unlink(missing_ok=True)
        rows.write_parquet(row_buffer.iter_sorted(), schema, {dataset / name: count for name, count in parts.items()})
    return normalized


def _count_per_input(names: list[str], *counts: list[int]) -> list[dict[str, Any]]:
    """Return the rows of each input, and how many are trained on (with repetitions) and held out; given per file."""
    inputs: dict[str, dict[str, Any]] = {}
    for name, *numbers in zip(names, *counts, strict=True):
        total = inputs.setdefault(name, {"name": name, "rows": 0, "train_rows": 0, "eval_rows": 0})
        for key, number in zip(("rows", "train_rows", "eval_rows"), numbers, strict=True):
            total[key] += number
    return list(inputs.values())


def _to_parquet(sources: list[Source], folder: Path) -> list[rows.DataFile]:
    """Convert files of other formats to parquet in ``folder``, and return all files.

    Raises:
        UnusableData: invalid files, with all their errors.
    """
    data, errors = [], {}
    for source in sources:
        columns = {str(name): column for name, column in source.input.columns.items()}
        use = conversion.ColumnUse.of(columns)
        try:
            path = conversion.to_parquet(source.path, source.location, source.sha256, use, folder)
        except BadInput as error:
            errors[source.path] = error
            continue
        find_lines = partial(conversion.find_lines, source.path, source.location, use)
        data.append(rows.DataFile(path, source.location, source.path, find_lines, columns, source.input.name))
    if errors:
        raise rows.UnusableData.combine(errors)
    return data


def _print_summary(result: Result, manifest: dict[str, Any]) -> None:
    count = len(manifest["sources"])
    print(
        f"{result.rows} training rows, {result.eval_rows} held out, from {count} file{'s' * (count > 1)}",
        flush=True,
    )
    for data in manifest.get("inputs", []):
        counts = f"{data['rows']} rows, {data['train_rows']} training rows, {data['eval_rows']} held out"
        print(f"  {data['name'] or 'tuning.input'}: {counts}", flush=True)
    for source in manifest["sources"]:
        if "weight" in source:
            print(f"  {source['train_rows']} of {source['from']} (weight {source['weight']:g})", flush=True)
    if manifest["unused_columns"]:
        print(f"unused columns: {', '.join(manifest['unused_columns'])}", flush=True)
    for warning in row_formats.unused_warnings(manifest["unused_columns"]):
        print(f"warning: {warning}", flush=True)
    if manifest["rows_not_learned"]:
        print(f"warning: {manifest['rows_not_learned']} rows have no message to learn (weight 0)", flush=True)
    if manifest["duplicate_rows"]:
        print(
            f"warning: {manifest['duplicate_rows']} rows are duplicates; "
            f"{manifest['held_out_rows_in_train']} held-out rows are also training rows",
            flush=True,
        )
    for warning in near_duplicates.from_manifest(manifest).warnings(result.rows, result.eval_rows):
        print(f"warning: {warning}", flush=True)


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
