"""Every field of the plan has bounds, and every source of its value enforces them with the same message."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter

from workflows import cli
from workflows.errors import InvalidInput, Problem
from workflows.plan import overrides, site
from workflows.plan.model import leaf_types
from workflows.plan.sources import FROM_LORA_CONFIG, FROM_TRAINING_ARGUMENTS, FROM_WORKSPACE
from workflows.spec import load

WORKSPACE: dict[str, Any] = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "bounds"},
    "resource": {"instanceType": "Standard_NC24ads_A100_v4", "labelSelector": {"matchLabels": {"app": "bounds"}}},
    "tuning": {
        "preset": {"name": "phi-4-mini-instruct"},
        "method": "qlora",
        "config": "training",
        "input": {"urls": ["https://data.example.com/train.parquet"]},
        "output": {"image": "registry.example.com/team/adapter:1.0"},
    },
    "inference": {"preset": {"name": "phi-4-mini-instruct"}},
}
TYPES = leaf_types()
SCHEMAS = {path: TypeAdapter(kind).json_schema() for path, kind in TYPES.items()}
UNBOUNDED = {
    "evaluation.minTaskScores": "the range of a score depends on the metric",
}
FREE_TEXT = {
    "data.pattern": "matches names of files, which can be any text",
    "data.columns": "a column can have any name",
    "data.image": "checked by spec.sources.check_image",
    "evaluation.tasks": "checked by spec.rules.check_tasks",
    "nodes.cluster": "checked by Azure",
    "nodes.fallbackInstanceTypes": "checked by presets.sku",
    "nodes.resourceGroup": "checked by Azure",
    "nodes.subscription": "checked by Azure",
    "output.image": "checked by spec.sources.check_image",
    "rollout.adapters": "a list of models, which have validators",
    "tuning.targetModules": "names of layers, which depend on the model",
}
FREE_MAPPINGS = {
    "data.volume", "output.volume", "rollout.serverArguments", "rollout.template", "tuning.loraConfig",
    "tuning.modelConfig", "tuning.quantizationConfig", "tuning.trainingArguments",
}  # fmt: skip
"""Mappings of others, checked by their own rules."""


def invalid_values(path: str) -> Iterator[tuple[str, Any]]:
    """Yield values below and above the bounds of a field, and of a wrong type, from the constraints of the model."""
    schema = SCHEMAS[path]
    [schema, *_] = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    yield from _invalid(schema)


def _invalid(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    match schema.get("type"):
        case "integer" | "number":
            bounds = {
                "below": [schema[key] - by for key, by in (("minimum", 1), ("exclusiveMinimum", 0)) if key in schema],
                "above": [schema[key] + by for key, by in (("maximum", 1), ("exclusiveMaximum", 0)) if key in schema],
            }
            yield from ((name, value) for name, values in bounds.items() for value in values)
            yield "type", "x"
        case "boolean":
            yield "type", "perhaps"
        case "array":
            yield "type", {"a": "b"}
        case "object":
            yield "type", ["a"]
            inner = schema.get("additionalProperties")
            if isinstance(inner, dict) and inner.get("type") == "number":
                yield from ((f"value {name}", {"a": value}) for name, value in _invalid(inner))
        case _ if "maxLength" in schema:
            yield "above", "a" * (schema["maxLength"] + 1)
        case _:
            yield "text", "A b"


CASES = [
    (path, name, value)
    for path in TYPES
    if path not in FREE_TEXT or SCHEMAS[path]["type"] == "array"
    for name, value in invalid_values(path)
]
IDS = [f"{path}-{name}-{str(value)[:12]}" for path, name, value in CASES]


def problem_of(call: Any, *arguments: Any) -> Problem:
    with pytest.raises(InvalidInput) as caught:
        call(*arguments)
    [problem] = caught.value.problems
    return problem


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def write_workspace(folder: Path, extra: dict[str, Any], training_config: dict[str, Any] | None = None) -> Path:
    data = {"training_config.yaml": yaml.safe_dump({"training_config": training_config or {}})}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "training"}, "data": data}
    file = folder / "workspace.yaml"
    file.write_text(yaml.safe_dump_all([WORKSPACE | extra, config], sort_keys=False))
    return file


@pytest.mark.parametrize(("path", "name", "value"), CASES, ids=IDS)
def test_every_source_enforces_the_bounds(tmp_path: Path, path: str, name: str, value: Any) -> None:
    by_flag = problem_of(overrides.from_flags, [f"{path}={as_text(value)}"])
    assert by_flag.file == "--set"
    assert by_flag.path.startswith(path)
    problems = [by_flag]
    if "." in path:
        variable = overrides.variable(path)
        problems.append(problem_of(overrides.from_environment, {variable: as_text(value)}))
        assert problems[-1].file == variable
    if path in site.FIELDS and not isinstance(value, dict):
        file = tmp_path / "site.yaml"
        file.write_text(yaml.safe_dump(nested(path, value)))
        problems.append(problem_of(site.load, str(file)))
        assert problems[-1].file == str(file)
    assert {problem.path for problem in problems} == {by_flag.path}
    field = FROM_WORKSPACE.get(path, "")
    if field.startswith("pipeline."):
        extra = nested(field, value)
        if field.startswith("pipeline.schedule.") and field != "pipeline.schedule.schedules":
            extra["pipeline"]["schedule"]["schedules"] = ["@daily"]
        file = write_workspace(tmp_path, extra)
        problems.append(problem_of(load, file))
        assert problems[-1].file == str(file) and problems[-1].line
        assert problems[-1].path == field + by_flag.path.removeprefix(path)
    assert {problem.message for problem in problems} == {by_flag.message}


PARAMETERS = [(name, *case) for name, path in overrides.PARAMETERS.items() for case in CASES if case[0] == path]


@pytest.mark.parametrize(("parameter", "path", "name", "value"), PARAMETERS)
def test_a_parameter_of_a_run_has_the_bounds_of_its_field(parameter: str, path: str, name: str, value: Any) -> None:
    document = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "argotune"}}}
    problem = problem_of(overrides.check_parameters, document, {parameter: as_text(value)})
    assert problem.file == f"-p {parameter}"
    by_flag = problem_of(overrides.from_flags, [f"{path}={as_text(value)}"])
    assert (problem.path, problem.message) == (by_flag.path, by_flag.message)


KAITO_KEYS = [
    (section, key, value)
    for section, keys in (("TrainingArguments", FROM_TRAINING_ARGUMENTS), ("LoraConfig", FROM_LORA_CONFIG))
    for path, key in keys.items()
    for case, _, value in CASES
    if case == path and key != "target_modules"
]


@pytest.mark.parametrize(("section", "key", "value"), KAITO_KEYS)
def test_a_training_config_has_the_bounds_of_the_plan(tmp_path: Path, section: str, key: str, value: Any) -> None:
    problem = problem_of(load, write_workspace(tmp_path, {}, {section: {key: value}}))
    assert problem.path == f"training_config.{section}.{key}"
    assert problem.message.startswith("must be ") and problem.line


def test_every_number_has_bounds() -> None:
    missing = {path for path, schema in SCHEMAS.items() if any(not _is_bounded(part) for part in _parts(schema))}
    assert missing == set(UNBOUNDED), "give the field bounds, or list it with a reason"


def _is_bounded(schema: dict[str, Any]) -> bool:
    if schema.get("type") not in ("integer", "number"):
        return True
    return bool({"minimum", "exclusiveMinimum"} & schema.keys() and {"maximum", "exclusiveMaximum"} & schema.keys())


def test_every_text_has_a_validator() -> None:
    free = {path for path, kind in TYPES.items() if _has_free_text(kind)} | {"rollout.adapters"}
    assert free == set(FREE_TEXT), "give the field a validator, or list it with a reason"


def _has_free_text(kind: Any) -> bool:
    """Return True if a type has text (not as a key of a mapping) without constraints."""
    if kind is str:
        return True
    if hasattr(kind, "__metadata__") and (
        kind.__origin__ is str or any(callable(getattr(m, "func", None)) for m in kind.__metadata__)
    ):
        return False
    parts = get_args(kind)[1:] if getattr(kind, "__origin__", None) is dict else get_args(kind)
    return any(_has_free_text(part) for part in parts)


def test_mappings_of_others_are_listed() -> None:
    values = {
        path: schema.get("additionalProperties") for path, schema in SCHEMAS.items() if schema.get("type") == "object"
    }
    optional = {
        path for path, schema in SCHEMAS.items() if any(p.get("type") == "object" for p in schema.get("anyOf", []))
    }
    assert {path for path, inner in values.items() if inner is True} | optional == FREE_MAPPINGS


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for key in ("anyOf", "items", "additionalProperties"):
        inner = schema.get(key)
        for part in inner if isinstance(inner, list) else [inner]:
            if isinstance(part, dict):
                yield from _parts(part)


@pytest.mark.parametrize(
    "setting", ["rollout.canary=100", "evaluation.samples=-5", "storage.size=banana", "rollout.deadline=soon"]
)
def test_the_command_line_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str) -> None:
    assert cli.main(["compile", str(write_workspace(tmp_path, {})), "--set", setting]) == 2
    path, _, value = setting.partition("=")
    error = capsys.readouterr().err
    assert error.startswith(f"error: --set: {path}: must be ") and value in error


def test_run_rejects_a_parameter_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    file = write_workspace(tmp_path, {})
    assert cli.main(["run", str(file), "-p", "rank=0", "--runs-dir", str(runs)]) == 2
    assert "-p rank: tuning.rank: must be greater than or equal to 1, not 0" in capsys.readouterr().err
    assert not runs.exists()


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("data-urls", '["https://me:pw@a.example/x"]', "user or password"),
        ("data-urls", '["https://a.example/$(HF_TOKEN)"]', "Kubernetes would replace"),
        ("image", "r.example.com/$(HF_TOKEN):1", "Kubernetes would replace"),
    ],
)
def test_parameters_have_no_password_and_no_reference(parameter: str, value: str, message: str) -> None:
    document = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "argotune"}}}
    with pytest.raises(InvalidInput, match=message):
        overrides.check_parameters(document, {parameter: value})
