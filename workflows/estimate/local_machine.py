"""Memory that a plan needs on the local machine (``argotune run``), regardless of the Workspace's instance type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import presets
from workflows.errors import Problem
from workflows.estimate import memory, shapes
from workflows.estimate.memory import CPU, GPU, Device, Training
from workflows.estimate.plan_estimate import USABLE_SHARE, training_of
from workflows.estimate.refusals import any_of, fitting_settings
from workflows.plan.model import Plan

if TYPE_CHECKING:
    from steps.runtime.machine import Machine

LIBRARIES_GIB = 0.8
"""Memory of Python, torch and the other libraries of the tune step on a CPU: docs/ESTIMATES.md."""


def memory_warnings(plan: Plan, machine: Machine, *, cuda: bool) -> list[Problem]:
    """Return warnings about parts that can exceed the local memory.

    They are not errors: other processes of the machine are unknown, and it can swap. ``cuda`` is True if the installed
    torch can use the GPUs.
    """
    if not plan.model.preset:
        return []
    room = _room(machine, cuda)
    found = [_tuning(plan, room) if plan.tuning else None, _serving(plan, room) if plan.rollout else None]
    return [problem for problem in found if problem]


@dataclass(frozen=True)
class _Room:
    gib: float
    where: str
    device: Device
    gpus: int


def _room(machine: Machine, cuda: bool) -> _Room:
    if cuda and machine.gpus:
        smallest = min(machine.gpus, key=lambda gpu: gpu.memory_gib)
        return _Room(USABLE_SHARE * smallest.memory_gib, f"a local GPU ({smallest.name})", GPU, len(machine.gpus))
    return _Room(machine.memory_gib - LIBRARIES_GIB, "the local machine", CPU, 1)


def _tuning(plan: Plan, room: _Room) -> Problem | None:
    model = shapes.of(presets.model(plan.model.preset))
    training = training_of(plan, room.gpus, checkpointing=room.device is GPU, room=room.gib)

    def needed(changed: Training) -> float:
        # Concurrent trials of a search share the memory of the machine, but not that of a GPU.
        trials = plan.search.parallel if plan.search and room.device is CPU else 1
        return trials * memory.tuning(model, changed, room.device).total

    if training is None or needed(training) <= room.gib:
        return None
    what = f"tuning needs about {needed(training):.1f} GiB of memory, but {room.where} has {room.gib:.1f} GiB"
    ways = fitting_settings(training, lambda changed: needed(changed) <= room.gib)
    return Problem(what, path="tuning", fix=any_of(ways) or "use a smaller model or a larger machine")


def _serving(plan: Plan, room: _Room) -> Problem | None:
    weights = presets.model(plan.model.preset).weights_gib
    if weights <= room.gib:
        return None
    what = f"the base model needs {weights:.1f} GiB, but {room.where} has {room.gib:.1f} GiB"
    return Problem(what, path="inference", fix="use a smaller model or a larger machine")
