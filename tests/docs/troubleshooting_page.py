"""docs/TROUBLESHOOTING.md: every error and warning with cause and fix, from the source."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Annotated

from message_source import ROOT, Message, error_classes, messages
from pydantic import Field, TypeAdapter, ValidationError
from schema_text import one_line

from steps.runtime import validation_messages

DOCUMENT = ROOT / "docs" / "TROUBLESHOOTING.md"
INTRODUCTION = """\
# Troubleshooting

An error states where, what and how to fix it:

```text
error: workspace.yaml:14: tuning.method: invalid value: qlorra
    fix: write lora or qlora
```

Search this page for a part of the message that has no names, numbers or paths of yours: the tables have `CAPITALS` in
their place. The cause states if a retry can help:

| cause | exit code | what to do |
|---|---|---|
| input | 2 | correct the file, flag or data; a retry fails again |
| temporary | 1 | nothing: the step retries. If it lasts, check the network |
| failure | 1 | follow the fix; Argo retries the step |
| gate | 3 | no adapter is good enough: see the report |
| capacity | 4 | request quota, or use another instance type or less memory |
| time limit | 6 | raise the limit, or reduce the work |
| cluster | 1 or 2 | the API server or Argo server rejected a request |
| check | 1 | `argotune doctor` found it |
| warning | 0 | the run continues |

Messages of `argotune lint` have [a page with examples](LINT_RULES.md).

- A pod that does not start: `argotune status NAME` shows its cause; `argotune doctor` checks the cluster.
- A run that stopped: `argotune logs NAME --step STEP`. Nothing is lost: run it again with `--resume`, or `argo retry`.
- "unexpected ..." is a bug. Run the command with `--debug`, or the step with `ARGOTUNE_DEBUG=1`, and report the
  traceback.

This page is generated from the source by `ARGOTUNE_REGENERATE=1 pytest tests/docs/test_reference_pages.py`.
"""
CAUSES = {
    "Problem": "input",
    "BadInput": "input",
    "InvalidInput": "input",
    "TransientError": "temporary",
    "InsufficientCapacity": "capacity",
    "TimeLimit": "time limit",
    "DeadlineExceeded": "time limit",
    "GateFailed": "gate",
    "ApiFailure": "cluster",
    "ApiError": "cluster",
    "Deleted": "cluster",
    "StepError": "failure",
    "ArgotuneError": "failure",
    "check": "check",
    "warning": "warning",
}
OF_VALUES = {"is required", "must be EXPECTED", "MESSAGE, not VALUE", "ERROR, not VALUE"}
"""Messages for invalid values, which are listed with their fixes in a section of their own."""
SECTIONS = {
    "Workspace": ("workflows/spec/",),
    "Plan, flags and site profile": ("workflows/plan/", "workflows/load_plans", "workflows/field_path"),
    "Estimate": ("workflows/estimate/", "presets/"),
    "Compilation": ("workflows/compile/", "workflows/api"),
    "Commands": (
        "workflows/commands/",
        "workflows/cli",
        "workflows/installation",
        "workflows/errors",
        "workflows/lint/",
    ),
    "Local runs": ("workflows/runner/", "workflows/runs/", "workflows/argo/"),
    "Cluster": ("workflows/cluster/", "steps/kubernetes/"),
    "Checks of argotune doctor": ("workflows/doctor/",),
    "Step preflight": ("steps/preflight/", "steps/dryrun/"),
    "Step provision and release": ("steps/provision/", "steps/release/"),
    "Step download": ("steps/download/", "steps/check/"),
    "Data": ("steps/data/", "steps/preview/"),
    "Step tune": ("steps/tune/", "steps/models/", "steps/fetch/"),
    "Step evaluate and promote": ("steps/evaluate/", "steps/promote/"),
    "Step package, and registries": ("steps/package/", "steps/oci/"),
    "Step rollout, and servers": ("steps/rollout/", "steps/serving/"),
    "All steps": ("steps/",),
}


def document() -> str:
    """Return the text of the page."""
    return "\n".join([INTRODUCTION, *_value_section(), *_sections()])


def _value_section() -> Iterator[str]:
    """Yield messages and fixes for values of a wrong type, out of bounds, or not among those allowed."""
    yield "## Values of all files and flags\n\n| message | cause | fix |\n|---|---|---|"
    rows = {}
    for kind, requirement in validation_messages.REQUIREMENTS.items():
        rows[f"{requirement}, not VALUE"] = validation_messages.fix({"type": kind})
    for bound, value in {"gt": 5, "ge": 4, "lt": 5, "le": 6}.items():
        try:
            TypeAdapter(Annotated[int, Field(**{bound: 5})]).validate_python(value)
        except ValidationError as error:
            [details] = error.errors()
            text = re.sub(r"\d", "NUMBER", validation_messages.requirement(details))
            rows[f"{text}, not VALUE"] = validation_messages.fix(details).replace("5", "NUMBER")
    rows["must be EXPECTED, not VALUE"] = "did you mean NEAR? or write ALLOWED"
    for text in sorted(rows):
        yield f"| {code(text)} | input | {code(rows[text]) if rows[text] else ''} |"
    yield ""


def _sections() -> Iterator[str]:
    remaining = [message for message in messages() if message.text not in OF_VALUES]
    for title, prefixes in SECTIONS.items():
        chosen = [message for message in remaining if message.file.startswith(prefixes)]
        remaining = [message for message in remaining if message not in chosen]
        if not chosen:
            continue
        yield f"## {title}\n\n| message | cause | fix |\n|---|---|---|"
        rows = {f"| {code(item.text)} | {cause(item)} | {fix(item)} |" for item in chosen}
        yield from sorted(rows, key=lambda row: re.sub(r"[^a-z]+", " ", row[2:].lower()))
        yield ""
    assert not remaining, f"no section of {__name__} has {remaining[0].file}"


def cause(message: Message) -> str:
    """Return the word for the class of an error."""
    name = message.kind
    while name not in CAUSES:
        name = error_classes()[name]
    return CAUSES[name]


def fix(message: Message) -> str:
    """Return the fix as the text of a cell."""
    if not message.fix:
        return "retried automatically" if cause(message) == "temporary" else ""
    if re.fullmatch(r"[A-Z_ ]+", message.fix):
        return "the message has it"
    return code(message.fix)


def code(text: str) -> str:
    """Return text as code that can be in a cell of a table."""
    if "`" in text or "|" in text or "\\" in text:
        escaped = html.escape(text, quote=False)
        for character in "|`*_":
            escaped = escaped.replace(character, f"&#{ord(character)};")
        return f"<code>{escaped}</code>"
    return f"`{one_line(text)}`"
