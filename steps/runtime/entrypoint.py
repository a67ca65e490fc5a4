"""Entrypoint of steps: parses flags into settings, and writes the result as output parameters.

In a pod, and in the local runner, ``ARGOTUNE_OUTPUTS`` is the directory from which Argo reads output parameters, one
file per field; without it the result is only printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from steps.runtime import files, storage_errors, terminal, termination, validation_messages, versions
from steps.runtime.errors import BadInput, StepError
from steps.runtime.options import Options
from steps.runtime.redaction import redact, redact_secrets
from steps.runtime.references import without_references
from steps.runtime.signatures import without_signatures

S = TypeVar("S", bound=Options)
R = TypeVar("R")

CANCELLED = 5
PARAMETER = "parameter "
FILE_SUFFIX = "-file"
"""End of the flags that name a file with the text of a setting."""
SUBMIT = "submit again with correct parameters (in the form of Argo's UI, or -p NAME=VALUE)"
INSTALL = "install argotune with the packages of its steps: pip install 'argotune[tune,serve]'"


def main(
    settings_type: type[S],
    step: Callable[[S], R],
    *,
    outputs_intact: Callable[[S, R], bool] | None = None,
    result_type: type[R] | None = None,
) -> NoReturn:
    """Run ``step`` as a program and exit with its code.

    Args:
        settings_type: model of the flags.
        step: the step's function.
        outputs_intact: returns True if the outputs of an earlier run with the same settings are complete, so that its
            result is reused; without it the step always runs.
        result_type: type of the result, to read that of an earlier run.
    """
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.stem
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Text of models and servers that the terminal's encoding does not have must not end a step.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        settings = parse(settings_type, sys.argv[1:], name)
        result = _reusable_result(name, settings, outputs_intact, result_type)
        if result is None:
            started = time.time()
            result = step(settings)
            _write_record(name, settings, result, started)
        else:
            print(f"{name}: already done with these settings; reusing its result", flush=True)
        publish(result)
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr, flush=True)
        termination.write("cancelled")
        sys.exit(CANCELLED)
    except Exception as error:
        sys.exit(_fail(as_step_error(name, error)))
    sys.exit(0)


def as_step_error(name: str, error: Exception) -> StepError:
    """Return the error of the step ``name``: expected errors unchanged, others described."""
    if isinstance(error, StepError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return BadInput(f"{name} needs {error.name}, which is not installed", INSTALL)
    return storage_errors.from_exception(error) or _unexpected(error)


def parse(settings_type: type[S], arguments: list[str], program: str = "") -> S:
    """Parse ``--field value`` (or ``--field=value``) flags into ``settings_type``; lists and mappings are JSON.

    ``--field-file PATH`` reads the text from a file: Linux limits the length of an argument. The word after a flag is
    its value, whatever it starts with, so that free text can start with a dash.

    Raises:
        BadInput: with all invalid flags.
    """
    fields = {field.alias or name: field for name, field in settings_type.model_fields.items()}
    texts, errors = _split_flags(arguments, {flag(name): name for name in fields})
    if "help" in texts:
        _print_help(settings_type, program)
    values: dict[str, Any] = {}
    invalid = set()
    for name, text in texts.items():
        try:
            values[name] = json.loads(text) if _is_json(fields[name]) else text
        except json.JSONDecodeError as error:
            errors.append(f"{_label(settings_type, name)}: must be JSON ({error}), not {texts[name][:40]!r}")
            invalid.add(name)
    try:
        settings = settings_type.model_validate(values)
    except pydantic.ValidationError as error:
        errors += [
            _describe(details, settings_type) for details in error.errors() if not invalid & set(details["loc"][:1])
        ]
    errors += [f"{_label(settings_type, name)}: {message}" for name, message in settings_type.check_texts(texts)]
    if errors:
        is_submitted = any(error.startswith(PARAMETER) for error in errors)
        raise BadInput("; ".join(errors), SUBMIT if is_submitted else f"run python -m steps.{program} --help")
    return settings


def flag(field: str) -> str:
    """Command-line flag of a settings field: ``learning_rate`` is ``--learning-rate``."""
    return "--" + field.replace("_", "-")


def flags(settings: Options) -> dict[str, str]:
    """Return the flags, with their values, of settings that differ from their defaults, by field."""
    values = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {
        field: f"{flag(field)}={value if isinstance(value, str) else json.dumps(value)}"
        for field, value in values.items()
    }


def publish(result: Any) -> None:
    """Print the result of a step, without empty fields; if Argo reads output parameters, write one file per field."""
    values = as_text(result)
    for key, value in values.items():
        if value:
            print(f"{key}: {value}", flush=True)
    folder = os.environ.get("ARGOTUNE_OUTPUTS")
    if folder:
        for key, value in values.items():
            files.write_text(Path(folder) / key, without_references(value))


def as_text(result: Any) -> Mapping[str, str]:
    """Return the fields of a result as Argo output parameters: names with dashes; values that are not text as JSON."""
    values = dataclasses.asdict(result)
    return {
        key.replace("_", "-"): str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)
        for key, value in values.items()
    }


def result_file(work: Path, name: str) -> Path:
    """Return the file with the settings and the result of the step ``name``, for later steps and the report."""
    return work / "results" / f"{name}.json"


def _print_help(settings_type: type[Options], program: str) -> NoReturn:
    epilog = f"--NAME{FILE_SUFFIX} PATH reads the value of --NAME from a file."
    parser = argparse.ArgumentParser(
        prog=f"python -m steps.{program}", description=settings_type.__doc__, epilog=epilog
    )
    for name, field in settings_type.model_fields.items():
        parser.add_argument(flag(field.alias or name), help=(field.description or "").replace("%", "%%"))
    parser.parse_args(["--help"])
    sys.exit(0)


def _split_flags(arguments: list[str], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the text of each flag by the name of its field, and the errors."""
    texts: dict[str, str] = {}
    errors = []
    words = list(reversed(arguments))
    while words:
        name, equals, value = words.pop().partition("=")
        if name in ("-h", "--help"):
            return {"help": ""}, []
        has_value = bool(words) and not _field(words[-1], known) and name.startswith("--")
        if not equals and has_value:
            value = words.pop()
        field = _field(name, known)
        if field is None:
            errors.append(f"{name}: unknown flag")
        elif not equals and not has_value:
            errors.append(f"{name}: a value is required")
        elif field in texts:
            errors.append(f"{name}: duplicate flag")
        elif name in known:
            texts[field] = value
        else:
            texts[field] = _read_text(name, value, errors)
    return texts, errors


def _field(word: str, known: Mapping[str, str]) -> str | None:
    """Return the field that a flag sets, itself or by a file; None for other words."""
    return known.get(word) or known.get(word.removesuffix(FILE_SUFFIX))


def _read_text(name: str, path: str, errors: list[str]) -> str:
    """Return the text of a file; report one that cannot be read."""
    try:
        return Path(path).read_bytes().decode()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        errors.append(f"{name}: cannot read {path}: {reason}")
        return ""


def _is_json(field: FieldInfo) -> bool:
    """Return True if a flag's text is JSON: for lists, tuples and mappings, also optional ones.

    A field with a ``BeforeValidator`` parses the text itself.
    """
    if any(isinstance(item, pydantic.BeforeValidator) for item in field.metadata):
        return False
    types = (field.annotation, *get_args(field.annotation))
    return any((get_origin(part) or part) in (list, dict, tuple) for part in types)


def _describe(error: ErrorDetails, settings_type: type[Options]) -> str:
    if not error["loc"]:
        return validation_messages.describe(error)
    first, *rest = error["loc"]
    inner = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest if part != "[key]")
    return f"{_label(settings_type, str(first))}{inner}: {validation_messages.describe(error)}"


def _label(settings_type: type[Options], field: str) -> str:
    """Return the name of a setting as the user set it: in a Workflow the parameter, elsewhere the flag."""
    parameter = settings_type.PARAMETERS.get(field)
    return f"{PARAMETER}{parameter}" if parameter and "ARGOTUNE_OUTPUTS" in os.environ else flag(field)


def _reusable_result(
    name: str, settings: S, outputs_intact: Callable[[S, R], bool] | None, result_type: type[R] | None
) -> R | None:
    """Return the result of an earlier run with these settings; None if its record or its outputs are damaged."""
    if outputs_intact is None or result_type is None:
        return None
    try:
        record = json.loads(_record_file(name, settings).read_text())
        result = pydantic.TypeAdapter(result_type).validate_python(record["result"])
        has_same_settings = record["settings_digest"] == _settings_digest(settings)
        return result if has_same_settings and outputs_intact(settings, result) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(name: str, settings: Options, result: Any, started: float) -> None:
    content = {
        "step": name,
        "settings": redact(as_json(settings)),
        "settings_digest": _settings_digest(settings),
        "result": json.loads(json.dumps(dataclasses.asdict(result), default=str)),
        "started": datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "versions": versions.installed(),
    }
    files.write_json(_record_file(name, settings), content)


def _settings_digest(settings: Options) -> str:
    """Return a digest that differs for `?file=1` and `?file=2`, but not for a renewed signature of a URL."""
    return files.sha256_text(json.dumps(redact_secrets(without_signatures(as_json(settings))), sort_keys=True))


def _record_file(name: str, settings: Options) -> Path:
    return result_file(Path(settings.work), name)  # type: ignore[attr-defined]


def as_json(settings: Options) -> Any:
    """Return settings as JSON values, by the names of their flags."""
    return json.loads(json.dumps(settings.model_dump(by_alias=True), default=str))


def _fail(error: StepError) -> int:
    print(terminal.escape(f"error: {error}"), file=sys.stderr, flush=True)
    termination.write(error.message, error.fix)
    return error.exit_code


def _unexpected(error: Exception) -> StepError:
    if os.environ.get("ARGOTUNE_DEBUG"):
        traceback.print_exc()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return StepError(
        f"unexpected {type(error).__name__} at {where}: {error}", "set ARGOTUNE_DEBUG=1 for the traceback"
    )
