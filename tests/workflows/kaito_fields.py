"""docs/FIELDS.md: support of KAITO fields, from ``tests/data/kaito_fields.yaml``, KAITO's schema and the models."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from steps.serving import vllm_flags
from workflows.spec import inference_config, inference_set, kaito_annotations
from workflows.spec.schema import json_schema
from workflows.spec.training_keys import SECTIONS, FixedValue, Ignored, IgnoredWithWarning, Unsupported

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "kaito"
DOCUMENT = ROOT / "docs" / "FIELDS.md"
ROWS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "data" / "kaito_fields.yaml").read_text())
CRDS = {"Workspace": "kaito.sh_workspaces.yaml", "InferenceSet": "kaito.sh_inferencesets.yaml"}
INSIDE = "spec.template.inference."
"""Fields of an InferenceSet below this are those of a Workspace's ``inference``."""

PRESET = {"name": "phi-4-mini-instruct"}
SIZE = "Standard_NC24ads_A100_v4"
SAMPLES: dict[str, dict[str, Any]] = {
    "tune": {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "sample"},
        "resource": {"instanceType": SIZE, "labelSelector": {"matchLabels": {"apps": "sample"}}},
        "tuning": {
            "preset": PRESET,
            "method": "qlora",
            "input": {"urls": ["https://data.example.com/train.parquet"]},
            "output": {"image": "registry.example.com/team/adapter:1.0"},
        },
    },
    "serve": {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "sample"},
        "resource": {"instanceType": SIZE, "labelSelector": {"matchLabels": {"apps": "sample"}}},
        "inference": {"preset": PRESET},
    },
    "set": {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "InferenceSet",
        "metadata": {"name": "sample"},
        "spec": {
            "labelSelector": {"matchLabels": {"apps": "sample"}},
            "template": {"resource": {"instanceType": SIZE}, "inference": {"preset": PRESET}},
        },
    },
}
# The ConfigMap that cases name as `settings`.
SETTINGS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings"},
    "data": {
        "training_config.yaml": "training_config: {LoraConfig: {r: 32}}",
        "inference_config.yaml": "vllm: {max-model-len: 4096}",
    },
}


def leaves(kind: str) -> dict[str, set[str]]:
    """Return every leaf of a kind's schema with its versions; ``status`` is one leaf."""
    found: dict[str, set[str]] = {}
    for version in yaml.safe_load((DATA / "crds" / CRDS[kind]).read_text())["spec"]["versions"]:
        for path in _leaves(version["schema"]["openAPIV3Schema"], ""):
            top = "status" if path.startswith("status") else path
            found.setdefault(top, set()).add(version["name"])
    return found


def _leaves(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield from _leaves(inner, f"{path}.{name}" if path else name)
    if schema.get("type") == "array":
        yield from _leaves(schema["items"], f"{path}[]")
    elif "properties" not in schema:
        yield path


def cases() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield every row with each of its cases; those of ``inference`` apply to an InferenceSet too."""
    for row in ROWS:
        for case in row["cases"]:
            yield row, case
            given = case["set"], case.get("was", {})
            if (
                case["in"] == "serve"
                and case.get("only") != "Workspace"
                and all(set(g) <= {"inference"} for g in given)
            ):
                yield row, _for_inference_set(row, case)


def _for_inference_set(row: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    inside = {key: {"spec": {"template": case[key]}} for key in ("set", "was") if key in case}
    at = case.get("at", row["field"])
    return {**case, **inside, "in": "set", "at": f"spec.template.{at}" if at.startswith("inference") else at}


def documents(case: Mapping[str, Any]) -> tuple[str, str]:
    """Return the file of a case without and with its fields."""
    before = merged(SAMPLES[case["in"]], case.get("was", {}))
    after = merged(before, case["set"])
    return tuple(yaml.safe_dump_all([document, SETTINGS], sort_keys=False) for document in (before, after))  # type: ignore[return-value]


def merged(value: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = copy.deepcopy(value) if isinstance(value, dict) else {}
    for key, inner in patch.items():
        if inner is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), inner)
    return result


def case_path(row: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    """Return the path in a message about a case."""
    return str(case.get("at", row["field"])).replace("[]", "[0]")


def document() -> str:
    """Return the text of docs/FIELDS.md."""
    parts = [
        INTRODUCTION,
        *_field_tables(),
        PIPELINE,
        *_pipeline(),
        ANNOTATIONS,
        *_annotations(),
        TRAINING,
        *_training(),
        SERVING,
        *_serving(),
    ]
    return "\n".join(parts) + "\n"


INTRODUCTION = """\
# Support of KAITO fields

Each field is supported, ignored for the reason in its row, or rejected by name with the nearest alternative.
`argotune validate FILE` reports rejected fields with their line. Fields and versions are those of KAITO 0.12
(`kaito.sh/v1alpha1` and `kaito.sh/v1beta1`); `pipeline:` is argotune's addition (`workflows/spec/pipeline.py`).

This page is generated by `ARGOTUNE_REGENERATE=1 pytest tests/workflows/spec/test_spec_fields.py` from
`tests/data/kaito_fields.yaml` and the tables of `workflows/spec/`. The test requires a row for each leaf of KAITO's
schemas, and checks each row with documents.
"""
PIPELINE = """
## Fields of `pipeline:`

argotune's addition to a Workspace. `--set`, the environment and a site profile have the same bounds.

| field | type | default | description |
|---|---|---|---|"""
ANNOTATIONS = """
## Annotations

| annotation | supported | ignored | other values |
|---|---|---|---|"""
TRAINING = """
## Keys of `training_config.yaml`

Keys of the ConfigMap in `tuning.config`. An unsupported key is accepted if its value disables the feature (`false`,
`"no"`, `"none"`, `""`). Unknown keys are rejected, with the nearest name."""
SERVING = """
## Keys of `inference_config.yaml`

Keys of the ConfigMap in `inference.config`. vLLM flags below `vllm:` are checked against the list of the vLLM in
`containers/serve.Dockerfile` and passed on, except these.

| key | effect |
|---|---|"""


def _field_tables() -> Iterator[str]:
    for kind in CRDS:
        known = leaves(kind)
        yield f"\n## {kind}\n\n| field | versions | support | effect, or reason | alternative |\n|---|---|---|---|---|"
        for row in ROWS:
            if row.get("of", "Workspace") == kind:
                versions = known.get(row["field"], set())
                since = "v1beta1" if versions == {"v1beta1"} else "both"
                instead = row.get("instead", "")
                yield f"| `{row['field']}` | {since} | {row['verdict']} | {_cell(row['how'])} | {_cell(instead)} |"
        if kind == "InferenceSet":
            yield "| `spec.template.inference.*` | both | as in a Workspace | as `inference.*` | |"
            yield "| `apiVersion`, `kind`, `metadata`, `status` | both | as in a Workspace | | |"


def _pipeline() -> Iterator[str]:
    """Yield a row for each field, derived from the models as the JSON Schema is."""
    definitions = json_schema()["$defs"]
    for block, content in definitions["Pipeline"]["properties"].items():
        name = next((ref.rpartition("/")[2] for ref in _references(content)), "")
        inner = definitions[name]["properties"] if name else {"": content}
        for field, rule in inner.items():
            default = json.dumps(rule["default"], ensure_ascii=False) if "default" in rule else ""
            path = f"{block}.{field}" if field else block
            text = " ".join(rule.get("description", "").split())
            yield f"| `{path}` | {_cell(_bounds(rule))} | {_cell(f'`{default}`' if default else '')} | {_cell(text)} |"


def _references(content: Mapping[str, Any]) -> Iterator[str]:
    for part in (content, *content.get("anyOf", [])):
        if "$ref" in part:
            yield part["$ref"]


def _bounds(rule: Mapping[str, Any]) -> str:
    [rule, *_] = [part for part in rule.get("anyOf", [rule]) if part.get("type") != "null"]
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {rule[key]}" for key, sign in limits.items() if key in rule]
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    return ", ".join([str(rule.get("type", "object")), *bounds])


def _annotations() -> Iterator[str]:
    for name, rule in kaito_annotations.RULES.items():
        known = () if rule.accepted or rule.reason else rule.known
        honoured = ", ".join(f"`{value}`" for value in rule.effective or known) or (
            "" if rule.accepted or rule.reason else "any value"
        )
        taken = ", ".join(f"`{value}`" for value in rule.accepted)
        why = f"rejected: {rule.reason}; {rule.fix}" if rule.reason else "rejected" if rule.known else ""
        yield f"| `{name}` | {honoured} | {taken} | {_cell(why)} |"

    scaler = inference_set.AUTOSCALER
    yield f"| `{scaler}auto-provision` (InferenceSet) | `true` | `false` | |"
    yield f"| `{scaler}max-replicas` (InferenceSet) | a number; default: `nodeCountLimit` | | |"
    same = (
        f"`metricName: {inference_set.METRIC}`, `threshold: {inference_set.THRESHOLD}`, `min-replicas` as `replicas`"
    )
    yield f"| other `{scaler}...` (InferenceSet) | {same} | | a warning reports the difference |"


def _training() -> Iterator[str]:
    for section, keys in SECTIONS.items():
        yield f"\n### {section}\n"
        honoured = [
            key
            for key, rule in keys.items()
            if not isinstance(rule, Ignored | IgnoredWithWarning | FixedValue | Unsupported)
        ]
        if honoured:
            yield f"Supported: {', '.join(f'`{key}`' for key in honoured)}.\n"
        yield "| key | support | reason | alternative |\n|---|---|---|---|"
        for key, rule in keys.items():
            if isinstance(rule, Ignored | IgnoredWithWarning):
                yield f"| `{key}` | ignored | {_cell(rule.why)} | |"
            elif isinstance(rule, FixedValue):
                allowed = " or ".join(
                    f"`{yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}`" for value in rule.values
                )
                yield f"| `{key}` | only {allowed} | {_cell(rule.why)} | {_cell(rule.fix)} |"
            elif isinstance(rule, Unsupported):
                yield f"| `{key}` | unsupported | {_cell(rule.why)} | {_cell(rule.fix)} |"


def _serving() -> Iterator[str]:
    for key, why in inference_config.WITHOUT_EFFECT.items():
        yield f"| `{key}` | ignored, with a warning: {_cell(why)} |"
    for flag, fix in inference_config.RESERVED.items():
        yield f"| `vllm.{flag}` | rejected, since argotune sets it: {_cell(fix)} |"
    for flag in inference_config.SINGLE:
        yield f"| `vllm.{flag}` | rejected: {vllm_flags.ONE_API_SERVER} |"
    yield f"| `vllm.{inference_config.TRUST}` | only `false`: {vllm_flags.NO_CODE} |"
    yield "| `vllm.chat-template` | Jinja text is passed on; a file of KAITO's image is rejected |"
    yield "| `vllm.max-model-len` | `auto`, or a number up to the model's context |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
