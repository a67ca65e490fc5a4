"""Where an adapter comes from, as a statement that others' tools read: in-toto Statement v1, SLSA provenance v1.

It is attached to the image as a referrer. Of what earlier steps wrote down it takes only what is about this very
adapter. Equal records give equal bytes; times are left out where ``SOURCE_DATE_EPOCH`` asks for equal images.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from steps.oci.oci_layout import Image, add_referrer
from steps.package.lineage import PREFIX, Lineage
from steps.runtime import versions
from steps.runtime.entrypoint import result_file
from steps.runtime.redaction import redact

MEDIA_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://argotune.dev/tuning/v1"
BUILDER = "https://argotune.dev/steps/package"
OF_A_FILE = {"rows": "rows", "bytes": "size", "weight": "weight", "trainedRows": "train_rows"}
"""What is told of a file of the data, and how the manifest of the download step calls it."""
Record = Mapping[str, Any]


def attach(image: Image, work: Path, name: str, base: Mapping[str, str], made_of: Lineage) -> Image:
    """Put the statement about ``image``, whose repository is ``name``, into its layout; gives the image with it.

    ``base`` has ``preset``, ``model`` and ``revision``.
    """
    said = statement(image.manifest.digest, work, name, base, made_of)
    content = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return add_referrer(image, MEDIA_TYPE, content, {"in-toto.io/predicate-type": PREDICATE})


def statement(digest: str, work: Path, name: str, base: Mapping[str, str], made_of: Lineage) -> dict[str, Any]:
    """The statement about the image ``digest``, from the records in ``work``; nothing in it looks like a secret."""
    records = _records(work, made_of)
    tuned = records.get("tune", {})
    parameters = {key: value for key, value in tuned.get("settings", {}).items() if _counts(key, value)}
    predicate: dict[str, Any] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {**parameters, **{key: value for key, value in base.items() if value}},
            "internalParameters": made_of.annotations(),
            "resolvedDependencies": [_base(base), *_data(work, made_of)],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": tuned.get("versions") or versions.installed()},
            "byproducts": _metrics(records),
        },
    }
    if tuned and "SOURCE_DATE_EPOCH" not in os.environ:
        started = datetime.fromisoformat(tuned["started"])
        ended = started + timedelta(seconds=round(tuned["seconds"]))
        predicate["runDetails"]["metadata"] = {"startedOn": _time(started), "finishedOn": _time(ended)}
    plain: dict[str, Any] = redact(
        {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": _digest(digest)}],
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )
    return plain


def _records(work: Path, made_of: Lineage) -> dict[str, Record]:
    """What tune and evaluate recorded, where it is of this adapter."""
    found: dict[str, Record] = {}
    for step, part in (("tune", "result"), ("evaluate", "settings")):
        record = _read(result_file(work, step))
        if record.get(part, {}).get("adapter_digest") == made_of.adapter_digest:
            found[step] = record
    return found


def _counts(key: str, value: Any) -> bool:
    """Whether a setting says how the adapter was made; folders of one machine say nothing elsewhere."""
    return value not in (None, "", [], {}) and key != "data_digest" and not str(value).startswith("/")


def _base(base: Mapping[str, str]) -> dict[str, Any]:
    model, revision = base.get("model", ""), base.get("revision", "")
    described: dict[str, Any] = {"name": "base model"}
    if "/" in model and not model.startswith(("/", ".", "~")):
        described["uri"] = f"https://huggingface.co/{model}" + (f"/tree/{revision}" if revision else "")
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        described["digest"] = {"gitCommit": revision}
    if base.get("preset"):
        described["annotations"] = {f"{PREFIX}preset": base["preset"]}
    return described


def _data(work: Path, made_of: Lineage) -> list[dict[str, Any]]:
    """The files that were tuned on, where the dataset in ``work`` is the one."""
    manifest = _read(work / "dataset" / "manifest.json")
    if not made_of.data_digest or manifest.get("data_digest") != made_of.data_digest:
        return []
    sources = manifest["sources"]
    return [
        {
            "name": "data" if len(sources) == 1 else f"data {number}",
            **({"uri": source["from"]} if "://" in source["from"] else {}),
            "digest": _digest(source["sha256"]),
            "annotations": {name: source[key] for name, key in OF_A_FILE.items() if key in source},
        }
        for number, source in enumerate(sources, 1)
    ]


def _metrics(records: Mapping[str, Record]) -> list[dict[str, Any]]:
    return [{"name": name, "annotations": record["result"]} for name, record in records.items()]


def _digest(digest: str) -> dict[str, str]:
    algorithm, _, digits = digest.partition(":")
    return {algorithm: digits}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
