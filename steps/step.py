"""How a step is started: flags become a dataclass, the function's dataclass becomes output parameters.

The same entry serves a pod and a laptop. In a pod (and under the one-machine runner) ``ARGOTUNE_OUTPUTS`` names the
folder from which Argo reads the output parameters, one file a field; by hand the results are only printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, dataclass_transform, get_origin, get_type_hints

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from steps import files
from steps.errors import BadInput, StepError

S = TypeVar("S")
R = TypeVar("R")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type[S]) -> type[S]:
    """Make a class the validated, frozen, keyword-only settings of a step; field docstrings become ``--help``."""
    config = pydantic.ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())
    return pydantic_dataclass(frozen=True, kw_only=True, config=config)(cls)  # type: ignore[return-value]


def main(
    settings_type: type[S],
    step: Callable[[S], R],
    *,
    still_there: Callable[[S, R], bool] | None = None,
    result_type: type[R] | None = None,
) -> NoReturn:
    """Run ``step`` as a program and exit with its code.

    A step that finished before with the same settings is not done again when ``still_there(settings, result)`` says
    that what it made is whole; without ``still_there`` it always runs.
    """
    name = Path(sys.argv[0]).stem
    try:
        given = parse(settings_type, sys.argv[1:], name)
        result = _finished_before(name, given, still_there, result_type)
        if result is None:
            result = step(given)
            _remember(name, given, result)
        else:
            print(f"{name}: already done with these settings; keeping its result", flush=True)
        publish(result)
    except KeyboardInterrupt:
        sys.exit(130)
    except StepError as error:
        sys.exit(_fail(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(_unexpected(error))
        where = error.filename or "the work volume"
        sys.exit(_fail(BadInput(f"no space left on {where}", "free space there, or ask for a larger volume")))
    except Exception as error:
        sys.exit(_unexpected(error))
    sys.exit(0)


def parse(settings_type: type[S], arguments: list[str], program: str = "") -> S:
    """Read ``--field value`` flags into ``settings_type``; lists and maps are given as JSON.

    Raises:
        BadInput: with every flag that is wrong, not only the first.
    """
    kinds = get_type_hints(settings_type)
    documentation = pydantic.TypeAdapter(settings_type).json_schema().get("properties", {})
    parser = argparse.ArgumentParser(prog=f"python -m steps.{program}", description=settings_type.__doc__)
    for field in dataclasses.fields(settings_type):  # type: ignore[arg-type]
        text = documentation.get(field.name, {}).get("description", "")
        parser.add_argument(flag(field.name), dest=field.name, help=text.replace("%", "%%"), default=argparse.SUPPRESS)
    values: dict[str, Any] = vars(parser.parse_args(arguments))
    wrong = []
    for key, value in list(values.items()):
        if get_origin(kinds[key]) in (list, dict, tuple):
            try:
                values[key] = json.loads(value)
            except json.JSONDecodeError as error:
                wrong.append(f"{flag(key)}: not JSON ({error})")
    if not wrong:
        try:
            return pydantic.TypeAdapter(settings_type).validate_python(values)
        except pydantic.ValidationError as error:
            wrong += [f"{flag(str(e['loc'][0])) if e['loc'] else 'flags'}: {e['msg']}" for e in error.errors()]
    raise BadInput("; ".join(wrong), f"see python -m steps.{program} --help")


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
        key.replace("_", "-"): v if isinstance(v, str) else json.dumps(v, default=str) for key, v in values.items()
    }


def result_file(work: Path, name: str) -> Path:
    """Where the step ``name`` keeps its settings and its result for later steps and for the report."""
    return work / "results" / f"{name}.json"


def _finished_before(
    name: str, given: S, still_there: Callable[[S, R], bool] | None, result_type: type[R] | None
) -> R | None:
    if still_there is None or result_type is None:
        return None
    try:
        kept = json.loads(result_file(Path(given.work), name).read_text())  # type: ignore[attr-defined]
        result = pydantic.TypeAdapter(result_type).validate_python(kept["result"])
    except (OSError, ValueError, KeyError):
        return None
    return result if kept["settings"] == _plain(given) and still_there(given, result) else None


def _remember(name: str, given: Any, result: Any) -> None:
    content = {"step": name, "settings": _plain(given), "result": _plain(result)}
    files.write_json(result_file(Path(given.work), name), content)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))


def _fail(error: StepError) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _unexpected(error: Exception) -> int:
    if os.environ.get("ARGOTUNE_DEBUG"):
        traceback.print_exc()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    print(f"error: unexpected {type(error).__name__} at {where}: {error}", file=sys.stderr, flush=True)
    print("  fix: set ARGOTUNE_DEBUG=1 for the traceback", file=sys.stderr, flush=True)
    return 1
