"""Verdicts of the real ``argo lint --offline``, many documents a process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PER_PROCESS = 100
TIMEOUT_SECONDS = 120
_TEMPLATE_KINDS = re.compile(r"(Cluster)?WorkflowTemplate\b")
_PLAIN_KINDS = re.compile(r"^\s*[\"']?kind[\"']?:\s*(Cron)?Workflow\s*$", re.MULTILINE)
_ANOMALY = re.compile(r"yaml file is not valid|FATAL|panic:|^Error:", re.MULTILINE)
_NOT_PARSED = re.compile(r"failed to parse YAML from file (\S+): (.*)")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_CLUSTER_BIN = Path(os.environ.get("CLUSTER_DIR", "/tmp/cluster"), "bin", "argo")


@dataclass(frozen=True)
class Verdict:
    """The report of ``argo lint`` on one file."""

    refused: bool
    message: str = ""


def find_argo() -> str | None:
    """Return the path of ``argo``; None when it is not installed."""
    return shutil.which("argo") or (str(_CLUSTER_BIN) if _CLUSTER_BIN.is_file() else None)


def argo_verdicts(argo: str, texts: Mapping[str, str], folder: Path) -> dict[str, Verdict]:
    """Write each text to a file of ``folder`` and return the verdict of ``argo lint`` on each, linted alone."""
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    verdicts: dict[str, Verdict] = {}
    for names in _batches(texts):
        verdicts |= _lint(argo, names, folder)
    return verdicts


def _batches(texts: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield lists of names. In one process, equal names of templates clash, and an unknown kind is skipped silently:
    such documents are linted alone.
    """
    batch: list[str] = []
    for name, text in texts.items():
        if _TEMPLATE_KINDS.search(text) or not _PLAIN_KINDS.search(text):
            yield [name]
            continue
        batch.append(name)
        if len(batch) == PER_PROCESS:
            yield batch
            batch = []
    if batch:
        yield batch


def _lint(argo: str, names: Sequence[str], folder: Path) -> dict[str, Verdict]:
    """Lint files in one process; a file that argo cannot parse ends the process, so the others run again."""
    command = ["nice", "-n", "10", argo, "lint", "--offline", "--no-color", *names]
    ended = subprocess.run(command, cwd=folder, capture_output=True, timeout=TIMEOUT_SECONDS)
    out = _COLOR.sub("", (ended.stdout + ended.stderr).decode(errors="replace"))
    broken = _NOT_PARSED.search(out)
    if broken and broken[1] in names:
        others = [name for name in names if name != broken[1]]
        return {broken[1]: Verdict(True, broken[2]), **(_lint(argo, others, folder) if others else {})}
    if len(names) > 1 and _ANOMALY.search(out):
        middle = len(names) // 2
        return _lint(argo, names[:middle], folder) | _lint(argo, names[middle:], folder)
    return _split(out, names, ended.returncode)


def _split(out: str, names: Sequence[str], code: int) -> dict[str, Verdict]:
    if len(names) == 1:
        lines = [line.strip() for line in out.splitlines() if line.strip() and not line.endswith(f"{names[0]}:")]
        return {names[0]: Verdict(code != 0, " | ".join(lines)[:300] if code else "")}
    verdicts = {name: Verdict(False) for name in names}
    current = ""
    for line in out.splitlines():
        if line.rstrip().endswith(":") and line.strip()[:-1] in verdicts:
            current = line.strip()[:-1]
        elif current and "✖" in line and "linting errors found" not in line:
            verdicts[current] = Verdict(True, line.split("✖", 1)[1].strip()[:300])
    return verdicts
