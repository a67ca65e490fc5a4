"""``pipeline.search``: a search of hyperparameters, and the trials that it consists of."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.alias_generators import to_camel

from steps.runtime.options import Seed
from steps.tune.settings import SEARCHABLE, TrainingOptions
from workflows.spec.fields import Fields

MAX_TRIALS = 100
SCALES = ("linear", "log")
REDUCTION = 2
"""Default of ``reduction``."""


class SearchSpace:
    """Metadata of ``parameters``: a JSON Schema for editors, from the settings of the tune step."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        declared = TrainingOptions.model_json_schema()["properties"]
        spaces = {to_camel(name): _space_schema(declared[name]) for name in SEARCHABLE}
        return {"type": "object", "properties": spaces, "additionalProperties": False, "minProperties": 1}


class PipelineSearch(Fields):
    """Search of hyperparameters: tune and evaluate an adapter for each trial, and continue with the best that passes
    the gate.
    """

    method: Literal["grid", "random", "halving"] = "grid"
    """grid: every combination of the listed values; random: a sample of them, also from ranges; halving: a random
    sample, of which only the best share of each rung is trained further (successive halving)."""
    trials: int | None = Field(None, ge=1, le=MAX_TRIALS)
    """Number of trials of random and halving."""
    seed: Seed = 42
    """Seed of the sample."""
    reduction: int | None = Field(None, ge=2, le=10)
    """halving: divisor of the number of trials from rung to rung, and factor of their training steps. Default: 2."""
    parallel: int = Field(1, ge=1, le=MAX_TRIALS)
    """Maximum number of concurrent trials, which share the node's GPUs equally."""
    parameters: Annotated[dict[str, Any], SearchSpace()] = Field(default_factory=dict)
    """Values by setting of the training, which they override: a list (`rank: [8, 16]`), or a range, inclusive
    (`learningRate: {min: 1.0e-5, max: 1.0e-3, scale: log}`)."""


@dataclass(frozen=True)
class Trial:
    """One combination of values."""

    name: str
    """Name of its directory."""
    values: Mapping[str, str]
    """Values as text, by the name of tune's flag."""

    @property
    def item(self) -> dict[str, str]:
        """The trial as an item of Argo's fan-out."""
        return {"candidate": self.name, **self.values}


@cache
def parameters() -> dict[str, TypeAdapter[Any]]:
    """Return what validates a value of each parameter, by its name in YAML."""
    fields = TrainingOptions.model_fields
    kinds: dict[str, Any] = {name: Annotated[fields[name].annotation, *fields[name].metadata] for name in SEARCHABLE}
    return {to_camel(name): TypeAdapter(kind) for name, kind in kinds.items()}


def flag_name(parameter: str) -> str:
    """Return the name of the flag, and of the Workflow's parameter: ``learning-rate`` of ``learningRate``."""
    return next(name for name in SEARCHABLE if to_camel(name) == parameter).replace("_", "-")


def flag_names(search: PipelineSearch | None) -> list[str]:
    """Return the flags that the trials of a search set; empty without a search."""
    return [flag_name(name) for name in search.parameters] if search else []


def trials(search: PipelineSearch) -> list[Trial]:
    """Return the trials of a valid search, the same for the same settings."""
    combinations = _grid(search) if search.method == "grid" else _sample(search, search.trials or 1)
    flags = flag_names(search)
    width = len(str(len(combinations)))
    return [
        Trial(f"trial-{number:0{width}}", dict(zip(flags, map(_format, values), strict=True)))
        for number, values in enumerate(combinations, 1)
    ]


def num_combinations(search: PipelineSearch) -> float:
    """Return how many combinations a search has; infinite with a range of real numbers."""
    return math.prod(_num_values(name, space) for name, space in search.parameters.items())


def extremes(space: Any) -> tuple[Any, Any]:
    """Return the smallest and the largest value of a parameter."""
    values = space if isinstance(space, list) else [space["min"], space["max"]]
    numbers = [float(value) for value in values]
    return min(numbers), max(numbers)


@dataclass(frozen=True)
class Rung:
    """One round of a search: the share of the training at which the trials that remain are compared."""

    trials: int
    share: float


def rungs(search: PipelineSearch) -> list[Rung]:
    """Return the rungs: with halving until one trial remains, else a single one."""
    count = len(trials(search))
    if search.method != "halving":
        return [Rung(count, 1)]
    reduction = search.reduction or REDUCTION
    counts = [count]
    while counts[-1] > 1:
        counts.append(max(1, counts[-1] // reduction))
    last = len(counts) - 1
    return [Rung(count, round(reduction ** (index - last), 6)) for index, count in enumerate(counts)]


def num_trainings(search: PipelineSearch | None) -> float:
    """Return the training of all trials as a multiple of one whole training."""
    if search is None:
        return 1
    done, total = 0.0, 0.0
    for rung in rungs(search):
        total += rung.trials * (rung.share - done)
        done = rung.share
    return total


def _grid(search: PipelineSearch) -> list[tuple[Any, ...]]:
    spaces = [[_validate(name, value) for value in values] for name, values in search.parameters.items()]
    return list(itertools.product(*spaces))


def _sample(search: PipelineSearch, count: int) -> list[tuple[Any, ...]]:
    """Return distinct combinations in random order; ``check`` has made sure that there are enough."""
    generator = random.Random(search.seed)
    found: dict[tuple[Any, ...], None] = {}
    for _ in range(1000 * count):
        if len(found) == count:
            break
        found.setdefault(tuple(_draw(name, space, generator) for name, space in search.parameters.items()))
    return list(found)


def _draw(name: str, space: Any, generator: random.Random) -> Any:
    # random() alone is the same in every version of Python.
    point = generator.random()
    if isinstance(space, list):
        return _validate(name, space[int(point * len(space))])
    low, high = (float(_validate(name, space[key])) for key in ("min", "max"))
    if space.get("scale") == "log":
        value = math.exp(math.log(low) + point * (math.log(high) - math.log(low)))
    else:
        value = low + point * (high - low)
    is_whole = _is_whole(name)
    # Three digits are enough, and readable.
    value = round(value) if is_whole else float(f"{value:.3g}")
    return _validate(name, min(max(value, low), high))


def _num_values(name: str, space: Any) -> float:
    if isinstance(space, list):
        return len(space)
    low, high = extremes(space)
    if low == high:
        return 1
    return high - low + 1 if _is_whole(name) else math.inf


def _is_whole(name: str) -> bool:
    return parameters()[name].json_schema()["type"] == "integer"


def _validate(name: str, value: Any) -> Any:
    return parameters()[name].validate_python(value)


def _format(value: float) -> str:
    return f"{value:.12g}"


def _space_schema(setting: dict[str, Any]) -> dict[str, Any]:
    value = {key: bound for key, bound in setting.items() if key not in ("default", "description", "title")}
    bounds = {"min": value, "max": value, "scale": {"enum": list(SCALES)}}
    span = {"type": "object", "properties": bounds, "required": ["min", "max"], "additionalProperties": False}
    return {"description": setting["description"], "anyOf": [{"type": "array", "items": value, "minItems": 1}, span]}
