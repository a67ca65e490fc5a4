"""Values of a plan that are set outside its file: ``--set``, environment variables, and ``-p`` of a run."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from steps.runtime.gpu_time import PARAMETER as BUDGET
from workflows.errors import InvalidInput, Problem
from workflows.plan.model import Plan
from workflows.spec import sources, urls
from workflows.spec.findings import Findings, describe, path_of
from workflows.spec.source import Source

FLAG = "--set"
PARAMETERS = {
    "data-urls": "data.urls",
    "epochs": "tuning.epochs",
    "max-steps": "tuning.maxSteps",
    "learning-rate": "tuning.learningRate",
    "batch-size": "tuning.batchSize",
    "rank": "tuning.rank",
    "alpha": "tuning.alpha",
    "image": "output.image",
    BUDGET: "budget.hours",
}
"""Parameters of a compiled Workflow, and the path of the plan that each starts with."""
_DERIVED = {"budget.usd": BUDGET, "output.image": "push"}
"""Other paths of the plan that determine a parameter."""


def from_flags(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``--set PATH=VALUE`` by path.

    Raises:
        InvalidInput: with every unknown path and every value of a wrong type or out of bounds.
    """
    pairs = [override.partition("=") for override in overrides]
    if wrong := [path for path, equals, _ in pairs if not equals]:
        raise InvalidInput([Problem(f'no "=" in "{path}"', file=FLAG, fix="--set PATH=VALUE") for path in wrong])
    return _checked((FLAG, path, value) for path, _, value in pairs)


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of variables such as ``ARGOTUNE_TUNING__EPOCHS=1`` by path.

    Raises:
        InvalidInput: as ``from_flags``.
    """
    paths = {variable(path): path for path in Plan.paths() if "." in path}
    return _checked(
        (name, paths.get(name, name), value)
        for name, value in environment.items()
        if name.startswith("ARGOTUNE_") and "__" in name
    )


def parameters_of(overrides: Sequence[str]) -> set[str]:
    """Return the parameters whose values are built from the paths of ``--set PATH=VALUE``."""
    paths = {override.partition("=")[0] for override in overrides}
    direct = {name for name, path in PARAMETERS.items() if path in paths}
    return direct | {name for path, name in _DERIVED.items() if path in paths}


def variable(path: str) -> str:
    """Return the environment variable of a path."""
    return "ARGOTUNE_" + path.replace(".", "__").upper()


def check_parameters(document: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
    """Check values of ``-p NAME=VALUE`` against the fields of the plan that they replace.

    Other names are skipped, and documents that argotune did not compile: their parameters can mean something else.

    Raises:
        InvalidInput: with every value of a wrong type or out of bounds.
    """
    if (document["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") != "argotune":
        return
    named = {name: path for name, path in PARAMETERS.items() if name in parameters}
    values = _checked((f"-p {name}", path, parameters[name]) for name, path in named.items())
    findings = Findings(Source("-p data-urls"))
    for index, url in enumerate(values.get("data.urls", [])):
        # The download step knows whether private hosts are allowed.
        urls.check(url, f"data.urls[{index}]", True, findings)
    image = Findings(Source("-p image"))
    sources.check_image(values.get("output.image", ""), "output.image", "output", image)
    problems = [*findings.errors, *image.errors]
    fix = "write it without $("
    message = "contains '$(', which Kubernetes would replace by an environment variable"
    problems += [Problem(message, file=f"-p {name}", fix=fix) for name, value in parameters.items() if "$(" in value]
    if problems:
        raise InvalidInput(problems)


def check_value(path: str, value: Any, source: str) -> Iterator[Problem]:
    """Yield what is wrong with one value; ``source`` is the flag, variable or file that sets it."""
    try:
        Plan.check_value(path, value)
    except ValidationError as error:
        for details in error.errors():
            inner = path_of(details["loc"])
            message, fix = describe(details)
            yield Problem(
                message, f"{path}{'' if inner.startswith('[') or not inner else '.'}{inner}", source, fix=fix
            )


def _checked(given: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
    """Return values by path, of ``(source, path, text)``."""
    known = Plan.paths()
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for source, path, text in given:
        if path not in known:
            near = difflib.get_close_matches(path, known, 1)
            fix = f'did you mean "{near[0]}"?' if near else "list all paths with 'argotune plan FILE --all'"
            problems.append(Problem(f'unknown path "{path}"', file=source, fix=fix))
        elif wrong := list(check_value(path, text, source)):
            problems += wrong
        else:
            values[path] = Plan.check_value(path, text)
    if problems:
        raise InvalidInput(problems)
    return values
