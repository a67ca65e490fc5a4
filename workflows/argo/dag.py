"""The graph of a DAG's tasks: which may start, the phase of the DAG, and the task that caused its failure.

Pure functions over task names and phases, by the rules of Argo's ``workflow/controller/dag.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, TypeVar

from workflows.argo import expressions
from workflows.argo.phase import Phase

ItemPhases = Mapping[str, Sequence[Phase]]
"""Phases of the items of each task that fans out."""
Accepts = Callable[[str, Phase], bool]
"""True if a task accepts its own failure, or the one it inherits (``continueOn``)."""


def never(_task: str, _phase: Phase) -> bool:
    """Accept no failure."""
    return False


class GraphTask(Protocol):
    """A task with its dependencies."""

    @property
    def name(self) -> str:
        """Name of the task."""

    @property
    def depends(self) -> str:
        """``depends``; empty when not set."""

    @property
    def dependencies(self) -> Sequence[str]:
        """``dependencies``; empty when not set."""


T = TypeVar("T", bound=GraphTask, covariant=True)


@dataclass(frozen=True)
class Graph(Generic[T]):
    """The tasks of one DAG."""

    tasks: Sequence[T]

    @cached_property
    def depends(self) -> dict[str, expressions.Expression]:
        """The parsed ``depends`` of the tasks that have one; ``dependencies: [a, b]`` is ``a && b``."""
        texts = {task.name: task.depends or " && ".join(task.dependencies) for task in self.tasks}
        return {name: expressions.parse_depends(text) for name, text in texts.items() if text}

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """The tasks that each task depends on."""
        return {
            task.name: expressions.tasks_of(self.depends[task.name]) if task.name in self.depends else []
            for task in self.tasks
        }

    @cached_property
    def leaves(self) -> list[str]:
        """The tasks that no other task depends on: they determine the phase of the DAG."""
        parents = {parent for parents in self.parents.values() for parent in parents}
        return [task.name for task in self.tasks if task.name not in parents]

    def ancestors(self, task: str) -> set[str]:
        """Return all tasks that end before this one can start."""
        ancestors: set[str] = set()
        queue = list(self.parents[task])
        while queue:
            name = queue.pop()
            if name not in ancestors:
                ancestors.add(name)
                queue += self.parents.get(name, [])
        return ancestors

    def cycle(self) -> list[str]:
        """Return the tasks of a dependency cycle; empty when there is none."""
        return next((cycle for task in self.tasks if (cycle := self._cycle_through(task.name))), [])

    def dependencies_done(self, task: str, phases: Mapping[str, Phase]) -> bool:
        """Return True if every task that ``task`` depends on has ended."""
        return all(phases.get(parent, Phase.PENDING).is_fulfilled for parent in self.parents[task])

    def depends_satisfied(self, task: str, phases: Mapping[str, Phase], items: ItemPhases) -> bool:
        """Return True if ``depends`` is satisfied, once all its tasks have ended."""
        depends = self.depends.get(task)
        if depends is None:
            return True
        return expressions.evaluate_depends(
            depends, lambda name, result: _has_result(result, phases[name], items.get(name, ()))
        )

    def assess(self, phases: Mapping[str, Phase], accepts: Accepts = never, *, fail_fast: bool = True) -> Phase:
        """Return the phase of the DAG when its tasks have ended: that of the first (fail fast) or last failed leaf."""
        failures = list(self.failures(phases, accepts).values())
        return (failures[0] if fail_fast else failures[-1]) if failures else Phase.SUCCEEDED

    def failures(self, phases: Mapping[str, Phase], accepts: Accepts = never) -> dict[str, Phase]:
        """Return the phases of the leaves that have failed, without those that accept it.

        A leaf that did not run inherits from its dependencies, a failure before a success.
        """
        found = {leaf: self.branch(leaf, phases) for leaf in self.leaves}
        return {leaf: phase for leaf, phase in found.items() if phase.is_failure and not accepts(leaf, phase)}

    def branch(self, task: str, phases: Mapping[str, Phase]) -> Phase:
        """Return the phase of a task that ran, or the phase that a task inherits."""
        phase = phases.get(task, Phase.PENDING)
        if phase.is_completed:
            return phase
        inherited = [self.branch(parent, phases) for parent in self.parents[task]]
        return next((phase for phase in inherited if phase.is_failure), Phase.SUCCEEDED)

    def root_failure(self, phases: Mapping[str, Phase], accepts: Accepts = never) -> str:
        """Return the failed task that caused the failure of the DAG; empty when there is none."""
        queue = list(self.failures(phases, accepts))
        while queue:
            task = queue.pop(0)
            if phases.get(task, Phase.PENDING).is_completed:
                return task
            queue += [parent for parent in self.parents[task] if self.branch(parent, phases).is_failure]
        return ""

    def _cycle_through(self, start: str) -> list[str]:
        def walk(task: str, path: list[str]) -> Iterator[list[str]]:
            for parent in self.parents.get(task, []):
                if parent == start:
                    yield [*path, start]
                elif parent not in seen:
                    seen.add(parent)
                    yield from walk(parent, [*path, parent])

        seen: set[str] = set()
        return next(walk(start, [start]), [])


def _has_result(result: str, phase: Phase, items: Sequence[Phase]) -> bool:
    match result:
        case "Errored":
            return phase is Phase.ERROR
        case "Daemoned":
            return False
        case "AnySucceeded":
            return any(item is Phase.SUCCEEDED for item in items)
        case "AllFailed":
            return bool(items) and all(item is Phase.FAILED for item in items)
    return phase == result
