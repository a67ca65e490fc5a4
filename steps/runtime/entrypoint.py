"""Entrypoint of steps: flags become a settings dataclass, the result dataclass becomes output parameters.

In a pod, and under the local runner, ``ARGOTUNE_OUTPUTS`` is the directory from which Argo reads output parameters,
one file for each field; without it the results are only printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import errno
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

from steps.runtime import files, terminal, termination, versions
from steps.runtime.errors import BadInput, StepError
from steps.runtime.options import Options
from steps.runtime.redaction import redact, redact_secrets

S = TypeVar("S", bound=Options)
R = TypeVar("R")

CANCELLED = 5
INSTALL = "install argotune with what its steps need: pip install 'argotune[tune,serve]'"


def main(
    settings_type: type[S],
    step: Callable[[S], R],
    *,
    outputs_intact: Callable[[S, R], bool] | None = None,
    result_type: type[R] | None = None,
) -> NoReturn:
    """Run ``step`` as a program and exit with its code.

    A step that finished before with the same settings is not done again when ``outputs_intact(settings, result)`` says
    that what it made is whole; without ``outputs_intact`` it always runs.
    """
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.stem
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What models answer and servers send may not fit the terminal's encoding; that must not end a step.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        given = parse(settings_type, sys.argv[1:], name)
        result = _finished_before(name, given, outputs_intact, result_type)
        if result is None:
            started = time.time()
            result = step(given)
            _remember(name, given, result, started)
        else:
            print(f"{name}: already done with these settings; keeping its result", flush=True)
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
    return _no_space(error) if _is_no_space(error) else _unexpected(error)


def parse(settings_type: type[S], arguments: list[str], program: str = "") -> S:
    """Read ``--field value`` (or ``--field=value``) flags into ``settings_type``; lists and maps are given as JSON.

    The word after a flag is its value whatever it begins with, so that free text may begin with a dash.

    Raises:
        BadInput: with every flag that is wrong, not only the first.
    """
    kinds = {field.alias or name: field.annotation for name, field in settings_type.model_fields.items()}
    given, wrong = _pairs(arguments, {flag(name): name for name in kinds})
    if "help" in given:
        _help(settings_type, program)
    values: dict[str, Any] = {}
    unread = set()
    for name, value in given.items():
        try:
            values[name] = json.loads(value) if _is_container(kinds[name]) else value
        except json.JSONDecodeError as error:
            wrong.append(f"{flag(name)}: not JSON ({error})")
            unread.add(name)
    try:
        result = settings_type.model_validate(values)
    except pydantic.ValidationError as errors:
        wrong += [_complaint(error) for error in errors.errors() if not unread & set(error["loc"][:1])]
    if wrong:
        raise BadInput("; ".join(wrong), f"see python -m steps.{program} --help")
    return result


def flag(field: str) -> str:
    """Command-line flag of a settings field: ``learning_rate`` is ``--learning-rate``."""
    return "--" + field.replace("_", "-")


def publish(result: Any) -> None:
    """Print a step's result and, where Argo reads output parameters, write one file a field."""
    values = as_text(result)
    for key, value in values.items():
        print(f"{key}: {value}", flush=True)
    folder = os.environ.get("ARGOTUNE_OUTPUTS")
    if folder:
        for key, value in values.items():
            files.write_text(Path(folder) / key, value)


def as_text(result: Any) -> Mapping[str, str]:
    """Fields of a result dataclass as Argo output parameters: dashed names, text values, JSON for the rest."""
    values = dataclasses.asdict(result)
    return {
        key.replace("_", "-"): str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)
        for key, value in values.items()
    }


def result_file(work: Path, name: str) -> Path:
    """Return the file with the settings and the result of the step ``name``, for later steps and the report."""
    return work / "results" / f"{name}.json"


def _help(settings_type: type[Options], program: str) -> NoReturn:
    parser = argparse.ArgumentParser(prog=f"python -m steps.{program}", description=settings_type.__doc__)
    for name, field in settings_type.model_fields.items():
        parser.add_argument(flag(field.alias or name), help=(field.description or "").replace("%", "%%"))
    parser.parse_args(["--help"])
    sys.exit(0)


def _pairs(arguments: list[str], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Split flags into ``{field: value}`` and what is wrong with them."""
    given: dict[str, str] = {}
    wrong = []
    words = list(reversed(arguments))
    while words:
        name, equals, value = words.pop().partition("=")
        if name in ("-h", "--help"):
            return {"help": ""}, []
        follows = bool(words) and words[-1] not in known and name.startswith("--")
        if not equals and follows:
            value = words.pop()
        if name not in known:
            wrong.append(f"{name}: unknown flag")
        elif not equals and not follows:
            wrong.append(f"{name}: needs a value")
        elif known[name] in given:
            wrong.append(f"{name}: given twice")
        else:
            given[known[name]] = value
    return given, wrong


def _is_container(kind: Any) -> bool:
    """Return True if values of a type are passed as JSON: lists, tuples and mappings, also optional ones."""
    return any((get_origin(part) or part) in (list, dict, tuple) for part in (kind, *get_args(kind)))


def _complaint(error: Any) -> str:
    if not error["loc"]:
        return str(error["msg"])
    first, *rest = error["loc"]
    inner = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest if part != "[key]")
    return f"{flag(str(first))}{inner}: {error['msg']}"


def _finished_before(
    name: str, given: S, outputs_intact: Callable[[S, R], bool] | None, result_type: type[R] | None
) -> R | None:
    """Result of an earlier run that may be kept; what is damaged counts as not there, and is made again."""
    if outputs_intact is None or result_type is None:
        return None
    try:
        kept = json.loads(_result_file(name, given).read_text())
        result = pydantic.TypeAdapter(result_type).validate_python(kept["result"])
        same = kept["settings_digest"] == _settings_digest(given)
        return result if same and outputs_intact(given, result) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(name: str, given: Options, result: Any, started: float) -> None:
    content = {
        "step": name,
        "settings": redact(as_json(given)),
        "settings_digest": _settings_digest(given),
        "result": json.loads(json.dumps(dataclasses.asdict(result), default=str)),
        "started": datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "versions": versions.installed(),
    }
    files.write_json(_result_file(name, given), content)


def _settings_digest(settings: Options) -> str:
    """Return a digest that differs for `?file=1` and `?file=2`, but not for a renewed signature of a URL."""
    return files.sha256_text(json.dumps(redact_secrets(as_json(settings)), sort_keys=True))


def _result_file(name: str, given: Options) -> Path:
    return result_file(Path(given.work), name)  # type: ignore[attr-defined]


def as_json(given: Options) -> Any:
    """Return settings as JSON values, by the names of their flags."""
    return json.loads(json.dumps(given.model_dump(by_alias=True), default=str))


def _fail(error: StepError) -> int:
    print(terminal.escape(f"error: {error}"), file=sys.stderr, flush=True)
    termination.write(error.message, error.fix)
    return error.exit_code


def _is_no_space(error: BaseException | None) -> bool:
    """Return True if a full disk caused an error; safetensors and torch wrap it in other errors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _no_space(error: Exception) -> BadInput:
    where = getattr(error, "filename", None) or "the work volume"
    return BadInput(f"no space left on {where}", "free space there, or ask for a larger volume")


def _unexpected(error: Exception) -> StepError:
    if os.environ.get("ARGOTUNE_DEBUG"):
        traceback.print_exc()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return StepError(
        f"unexpected {type(error).__name__} at {where}: {error}", "set ARGOTUNE_DEBUG=1 for the traceback"
    )
