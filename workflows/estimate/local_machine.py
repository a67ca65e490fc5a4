"""What a plan needs of the machine that runs it itself (``argotune run``), whatever size the Workspace names."""

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
"""Of memory, for Python, torch and the other libraries of the tune step on a processor: docs/ESTIMATES.md."""


def memory_warnings(plan: Plan, machine: Machine, *, cuda: bool) -> list[Problem]:
    """What may be too large for this machine. These are warnings: what else it does is not known, and it may swap.

    ``cuda``: whether its GPUs, where it has any, can be used by the torch that is installed.
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
        return _Room(
            USABLE_SHARE * smallest.memory_gib, f"a GPU of this machine ({smallest.name})", GPU, len(machine.gpus)
        )
    return _Room(machine.memory_gib - LIBRARIES_GIB, "this machine", CPU, 1)


def _tuning(plan: Plan, room: _Room) -> Problem | None:
    model = shapes.of(presets.model(plan.model.preset))
    training = training_of(plan, room.gpus, checkpointing=room.device is GPU, room=room.gib)

    def needed(changed: Training) -> float:
        return memory.tuning(model, changed, room.device).total

    if training is None or needed(training) <= room.gib:
        return None
    what = f"tuning needs about {needed(training):.1f} GiB of memory, and {room.where} has {room.gib:.1f} for it"
    ways = fitting_settings(training, lambda changed: needed(changed) <= room.gib)
    return Problem(what, path="tuning", fix=any_of(ways) or "take a smaller model, or a larger machine")


def _serving(plan: Plan, room: _Room) -> Problem | None:
    weights = presets.model(plan.model.preset).weights_gib
    if weights <= room.gib:
        return None
    what = f"the base model alone is {weights:.1f} GiB, and {room.where} has {room.gib:.1f} to serve it"
    return Problem(what, path="inference", fix="take a smaller model, or a larger machine")
