"""Provenance of an adapter as a standard statement: in-toto Statement v1 with SLSA provenance v1.

It is attached to the image as a referrer, and includes only records of earlier steps about this adapter. Equal
records produce equal bytes; timestamps are omitted if ``SOURCE_DATE_EPOCH`` requests reproducible images.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from steps.models import locations
from steps.oci.oci_layout import Image, add_referrer
from steps.package.lineage import PREFIX, Lineage
from steps.runtime import versions
from steps.runtime.entrypoint import result_file
from steps.runtime.json_text import parse_json
from steps.runtime.redaction import redact

MEDIA_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://argotune.dev/tuning/v1"
BUILDER = "https://argotune.dev/steps/package"
FILE_FACTS = {"rows": "rows", "bytes": "size", "weight": "weight", "trainedRows": "train_rows"}
"""Annotations of a data file, and their keys in the manifest of the download step."""
Record = Mapping[str, Any]


def attach(image: Image, work: Path, name: str, base: Mapping[str, str], lineage: Lineage) -> Image:
    """Add the statement about ``image``, whose repository is ``name``, to its layout; return the image with it.

    ``base`` has ``preset``, ``model`` and ``revision``.
    """
    document = build_statement(image.manifest.digest, work, name, base, lineage)
    content = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return add_referrer(image, MEDIA_TYPE, content, {"in-toto.io/predicate-type": PREDICATE})


def build_statement(digest: str, work: Path, name: str, base: Mapping[str, str], lineage: Lineage) -> dict[str, Any]:
    """Return the statement about the image ``digest``, from the records in ``work``, with secrets redacted."""
    records = _read_records(work, lineage)
    tuned = records.get("tune", {})
    parameters = {key: value for key, value in tuned.get("settings", {}).items() if _is_relevant(key, value)}
    predicate: dict[str, Any] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {**parameters, **{key: value for key, value in base.items() if value}},
            "internalParameters": lineage.annotations(),
            "resolvedDependencies": [_describe_base_model(base), *_describe_data(work, lineage)],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": tuned.get("versions") or versions.installed()},
            "byproducts": _describe_metrics(records),
        },
    }
    if tuned and "SOURCE_DATE_EPOCH" not in os.environ:
        started = datetime.fromisoformat(tuned["started"])
        ended = started + timedelta(seconds=round(tuned["seconds"]))
        predicate["runDetails"]["metadata"] = {"startedOn": _format_time(started), "finishedOn": _format_time(ended)}
    redacted: dict[str, Any] = redact(
        {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": _digest(digest)}],
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )
    return redacted


def _read_records(work: Path, lineage: Lineage) -> dict[str, Record]:
    """Read the records of tune and evaluate about this adapter."""
    records: dict[str, Record] = {}
    for step, part in (("tune", "result"), ("evaluate", "settings")):
        record = _read_json(result_file(work, step))
        if record.get(part, {}).get("adapter_digest") == lineage.adapter_digest:
            records[step] = record
    return records


def _is_relevant(key: str, value: Any) -> bool:
    """Return True for settings that shape the adapter; local paths mean nothing elsewhere."""
    return value not in (None, "", [], {}) and key != "data_digest" and not str(value).startswith("/")


def _describe_base_model(base: Mapping[str, str]) -> dict[str, Any]:
    model, revision = base.get("model", ""), base.get("revision", "")
    described: dict[str, Any] = {"name": "base model"}
    if locations.has_own_weights(model):
        described["uri"] = model
    elif "/" in model and not locations.is_folder(model):
        described["uri"] = f"https://huggingface.co/{model}" + (f"/tree/{revision}" if revision else "")
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        described["digest"] = {"gitCommit": revision}
    elif revision.startswith("sha256:"):
        described["digest"] = _digest(revision)
    if base.get("preset"):
        described["annotations"] = {f"{PREFIX}preset": base["preset"]}
    return described


def _describe_data(work: Path, lineage: Lineage) -> list[dict[str, Any]]:
    """Describe the training files, if the dataset in ``work`` is the adapter's."""
    manifest = _read_json(work / "dataset" / "manifest.json")
    if not lineage.data_digest or manifest.get("data_digest") != lineage.data_digest:
        return []
    sources = manifest["sources"]
    return [
        {
            "name": "data" if len(sources) == 1 else f"data {number}",
            **({"uri": source["from"]} if "://" in source["from"] else {}),
            "digest": _digest(source["sha256"]),
            "annotations": {name: source[key] for name, key in FILE_FACTS.items() if key in source},
        }
        for number, source in enumerate(sources, 1)
    ]


def _describe_metrics(records: Mapping[str, Record]) -> list[dict[str, Any]]:
    return [{"name": name, "annotations": record["result"]} for name, record in records.items()]


def _digest(digest: str) -> dict[str, str]:
    algorithm, _, digits = digest.partition(":")
    return {algorithm: digits}


def _format_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
