"""What the phases of a DAG's tasks mean: which may start, what the DAG has come to, which task is to blame.

Pure functions over task names and phases. The rules are those of Argo's ``workflow/controller/dag.go``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from workflows.argo import expressions
from workflows.argo.document import Task
from workflows.runner.state import Phase

Items = Mapping[str, Sequence[Phase]]
"""Phases of the items of the tasks that fan out."""


@dataclass(frozen=True)
class Graph:
    """The tasks of one DAG."""

    tasks: Sequence[Task]

    @cached_property
    def depends(self) -> dict[str, expressions.Expression]:
        """The parsed ``depends`` of the tasks that have one; ``dependencies: [a, b]`` is ``a && b``."""
        texts = {task.name: task.depends or " && ".join(task.dependencies) for task in self.tasks}
        return {name: expressions.parse_depends(text) for name, text in texts.items() if text}

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """The tasks that each task waits for."""
        return {
            task.name: expressions.tasks_of(self.depends[task.name]) if task.name in self.depends else []
            for task in self.tasks
        }

    @cached_property
    def leaves(self) -> list[str]:
        """The tasks that nothing waits for: they decide the phase of the DAG."""
        waited_for = {parent for parents in self.parents.values() for parent in parents}
        return [task.name for task in self.tasks if task.name not in waited_for]

    def ancestors(self, task: str) -> set[str]:
        """All tasks that end before this one can start."""
        found: set[str] = set()
        queue = list(self.parents[task])
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                queue += self.parents.get(name, [])
        return found

    def cycle(self) -> list[str]:
        """Tasks that wait for each other in a ring; empty when there is none."""
        return next((ring for task in self.tasks if (ring := self._ring(task.name))), [])

    def decided(self, task: str, phases: Mapping[str, Phase]) -> bool:
        """Whether all that a task waits for has ended."""
        return all(phases.get(parent, Phase.PENDING).fulfilled for parent in self.parents[task])

    def met(self, task: str, phases: Mapping[str, Phase], items: Items) -> bool:
        """Whether the ``depends`` of a task is met, once all that it waits for has ended."""
        depends = self.depends.get(task)
        if depends is None:
            return True
        return expressions.evaluate_depends(
            depends, lambda name, result: _holds(result, phases[name], items.get(name, ()))
        )

    def assess(self, phases: Mapping[str, Phase], *, fail_fast: bool = True) -> Phase:
        """Phase of the DAG when its tasks have ended: that of the failed leaf, the first or (not failing fast) last.

        A leaf that did not run inherits from the tasks it waited for, a failure before a success.
        """
        bad = [phase for leaf in self.leaves if (phase := self.branch(leaf, phases)).bad]
        return (bad[0] if fail_fast else bad[-1]) if bad else Phase.SUCCEEDED

    def branch(self, task: str, phases: Mapping[str, Phase]) -> Phase:
        """Phase of a task that ran; of one that did not, what it inherits."""
        phase = phases.get(task, Phase.PENDING)
        if phase.completed:
            return phase
        inherited = [self.branch(parent, phases) for parent in self.parents[task]]
        return next((phase for phase in inherited if phase.bad), Phase.SUCCEEDED)

    def to_blame(self, phases: Mapping[str, Phase]) -> str:
        """The task that ran and failed, to which the failure of the DAG goes back; empty when there is none."""
        queue = [leaf for leaf in self.leaves if self.branch(leaf, phases).bad]
        while queue:
            task = queue.pop(0)
            if phases.get(task, Phase.PENDING).completed:
                return task
            queue += [parent for parent in self.parents[task] if self.branch(parent, phases).bad]
        return ""

    def _ring(self, start: str) -> list[str]:
        def walk(task: str, way: list[str]) -> Iterator[list[str]]:
            for parent in self.parents.get(task, []):
                if parent == start:
                    yield [*way, start]
                elif parent not in seen:
                    seen.add(parent)
                    yield from walk(parent, [*way, parent])

        seen: set[str] = set()
        return next(walk(start, [start]), [])


def _holds(result: str, phase: Phase, items: Sequence[Phase]) -> bool:
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
