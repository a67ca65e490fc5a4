"""Run templates as nodes: containers, the tasks of a DAG as soon as they are ready, the items of a fan-out.

A node that succeeded before with the same inputs does not run again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from steps.runtime.json_text import parse_json
from workflows.argo.dag import Graph
from workflows.argo.expressions import ExpressionError, evaluate_when
from workflows.argo.phase import Phase
from workflows.argo.tags import MissingValue, Unresolved, item_text, substitute
from workflows.argo.workflow import Spec, Task, Template
from workflows.runner import scope as scopes
from workflows.runner import suspends
from workflows.runner.control import Stop, Timing
from workflows.runner.outcome import step_from_node
from workflows.runner.pod_runner import PodRunner
from workflows.runner.state import Node, Run
from workflows.runs.observer import Observer

EXIT = "onExit"
"""Key of the exit handler's node."""

Scope = dict[str, str | MissingValue]


@dataclass
class _Dag:
    """A running DAG."""

    template: Template
    key: str
    scope: Scope
    stop: Stop
    nodes: dict[str, Node] = field(default_factory=dict)
    """Nodes of the tasks that have ended."""
    items: dict[str, list[Phase]] = field(default_factory=dict)
    """Phases of the items of the fan-outs that have ended."""

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.template.tasks)

    @cached_property
    def slots(self) -> asyncio.Semaphore | None:
        return asyncio.Semaphore(self.template.parallelism) if self.template.parallelism else None

    @property
    def phases(self) -> dict[str, Phase]:
        """Phases of the tasks that have ended.

        In a Steps template, a failure that ``continueOn`` accepts is a success; in a DAG, tasks inherit it.
        """
        return {name: node.phase for name, node in self.nodes.items()} if self.template.dag else self.dependencies

    @property
    def dependencies(self) -> dict[str, Phase]:
        """The same as tasks that depend on them see them: an accepted failure is a success."""
        ended = ((name, node.phase) for name, node in self.nodes.items())
        return {name: Phase.SUCCEEDED if self.accepts(name, phase) else phase for name, phase in ended}

    def accepts(self, name: str, phase: Phase) -> bool:
        """Return True if ``continueOn`` of a task accepts a failure."""
        return (name, phase.lower()) in self._accepted

    @cached_property
    def _accepted(self) -> set[tuple[str, str]]:
        return {(task.name, phase) for task in self.template.tasks for phase, on in task.continue_on.items() if on}

    @property
    def closed(self) -> bool:
        """True when no other task can start.

        ``dag.failFast`` (default true) applies when a leaf failed or inherited a failure, so that a task that handles
        the failure of another still runs; ``failFast`` of the template applies when any task failed.
        """
        if self.stop.requested or (self.template.fail_fast and self.any_failure):
            return True
        if self.template.dag and not self.template.dag.fail_fast:
            return False
        phases = self.phases
        failures = self.graph.failures(phases, self.accepts)
        return any(phases.get(leaf, Phase.PENDING).is_fulfilled for leaf in failures)

    @property
    def any_failure(self) -> bool:
        """True if a task failed that does not accept it."""
        return any(phase.is_failure for phase in self.dependencies.values())

    def key_of(self, task: Task) -> str:
        return f"{self.key}.{task.name}" if self.key else task.name


class Nodes:
    """The nodes of one run."""

    def __init__(self, spec: Spec, run: Run, pods: PodRunner, observer: Observer, timing: Timing) -> None:
        self._spec = spec
        self._run = run
        self._state = run.state
        self._pods = pods
        self._observer = observer
        self._timing = timing
        self._prompt = asyncio.Lock()

    async def call(
        self,
        template: Template,
        key: str,
        name: str,
        inputs: dict[str, str],
        scope: Mapping[str, str | MissingValue],
        stop: Stop,
    ) -> Node:
        """Run a template as the node ``key``, unless it succeeded before with the same inputs."""
        previous = self._state.nodes.get(key)
        if previous and previous.phase is Phase.SUCCEEDED and previous.inputs == inputs:
            return previous
        kind = "Container" if template.container else "DAG" if template.suspend is None else "Suspend"
        attempts = previous.attempts if previous else []
        node = Node(key=key, task=name, template=template.name, type=kind, inputs=inputs, attempts=attempts)
        if key:
            self._state.nodes[key] = node
        template_scope = {**_workflow_tags(scope), **scopes.input_scope(inputs)}
        if template.container:
            template_scope |= scopes.pod_scope(self._state, template, key)
            await self._pods.run(template, node, template_scope, stop)
        elif template.suspend is not None:
            await self._suspend(template, node, stop)
        else:
            await self._run_dag(_Dag(template, key, template_scope, stop), node)
        if node.phase is Phase.SUCCEEDED:
            names = {output.name: output.global_name for output in template.outputs.parameters if output.global_name}
            self._state.outputs |= {names[n]: value for n, value in node.outputs.items() if n in names}
        return node

    def settle(self, key: str, name: str, template: Template, phase: Phase, message: str) -> Node:
        """End a node without running it."""
        previous = self._state.nodes.get(key)
        node = Node(key=key, task=name, template=template.name, type="Skipped", phase=phase, message=message)
        node.attempts = previous.attempts if previous else []
        node.cause = key if phase.is_failure else ""
        node.started_at = node.finished_at = self._timing.now()
        self._state.nodes[key] = node
        self._changed(node)
        return node

    async def _suspend(self, template: Template, node: Node, stop: Stop) -> None:
        node.phase, node.started_at = Phase.RUNNING, self._timing.now()
        self._changed(node)
        async with self._prompt:  # one question at a time
            await suspends.wait(template, node, self._state.parameters, stop, self._observer, suspends.terminal())
        node.finished_at = self._timing.now()
        self._changed(node)

    async def _run_dag(self, dag: _Dag, node: Node) -> None:
        node.phase, node.started_at = Phase.RUNNING, self._timing.now()
        self._changed(node)
        graph, running = dag.graph, dict[asyncio.Task[Node], str]()
        while True:
            waiting = [t for t in graph.tasks if t.name not in dag.nodes and t.name not in running.values()]
            ended_tasks = dag.dependencies
            ready = [task for task in waiting if graph.dependencies_done(task.name, ended_tasks)]
            satisfied = [task for task in ready if graph.depends_satisfied(task.name, ended_tasks, dag.items)]
            # Start tasks before omitting others: a task can handle the failure that omits the others.
            if satisfied and not dag.closed:
                running[asyncio.ensure_future(self._run_task(dag, satisfied[0]))] = satisfied[0].name
            elif unmet := next((task for task in ready if task not in satisfied), None):
                dag.nodes[unmet.name] = self._omit(dag, unmet, "its depends can't be met")
            elif running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                dag.nodes |= {running.pop(ended): ended.result() for ended in done}
            else:
                break
        if not dag.stop.requested:
            for task in graph.tasks:
                if not dag.phases.get(task.name, Phase.PENDING).is_fulfilled:
                    dag.nodes[task.name] = self._omit(dag, task, "another task failed (failFast)")
        self._end_dag(dag, node)

    def _end_dag(self, dag: _Dag, node: Node) -> None:
        phases = dag.phases
        fail_fast = dag.template.dag is None or dag.template.dag.fail_fast
        node.phase = dag.graph.assess(phases, dag.accepts, fail_fast=fail_fast)
        stopped = any(not phases.get(task.name, Phase.PENDING).is_fulfilled for task in dag.graph.tasks)
        failed_fast = dag.template.fail_fast and dag.any_failure
        if node.phase is Phase.SUCCEEDED and (stopped or failed_fast):
            node.phase = Phase.FAILED
        if node.phase.is_failure:
            failed = [name for name, phase in phases.items() if phase.is_failure]
            cause = dag.nodes.get(dag.graph.root_failure(phases, dag.accepts) or next(iter(failed), ""))
            node.cause = cause.cause if cause else ""
            node.message = f"{cause.task}: {cause.message}" if cause else dag.stop.reason
        else:
            self._gather_outputs(dag, node)
        node.finished_at = self._timing.now()
        self._changed(node)

    def _gather_outputs(self, dag: _Dag, node: Node) -> None:
        scope = self._scope(dag)
        for output in dag.template.outputs.parameters:
            try:
                node.outputs[output.name] = substitute(output.value_from.parameter if output.value_from else "", scope)
            except Unresolved as error:
                if output.default is None:
                    node.phase, node.cause = Phase.ERROR, node.key
                    node.message = f"outputs.parameters.{output.name}: {error}"
                else:
                    node.outputs[output.name] = output.default

    async def _run_task(self, dag: _Dag, task: Task) -> Node:
        key, scope, called = dag.key_of(task), self._scope(dag), self._spec.template(task.template)
        if not task.fans_out:
            return await self._run_one(dag, task, key, task.name, scope)
        try:
            with contextlib.suppress(ExpressionError, Unresolved):  # a when about {{item}} is evaluated for each item
                if not evaluate_when(when := substitute(task.when, scope)):
                    return self.settle(key, task.name, called, Phase.SKIPPED, f"when '{when}' is false")
            items = _items(task, scope)
        except (Unresolved, ValueError) as error:
            return self.settle(key, task.name, called, Phase.ERROR, str(error))
        if not items:
            return self.settle(key, task.name, called, Phase.SKIPPED, "no items")
        group = Node(key=key, task=task.name, template=called.name, type="TaskGroup", phase=Phase.RUNNING)
        group.started_at = self._timing.now()
        self._delete_items(key, len(items))
        self._state.nodes[key] = group
        self._changed(group)
        runs = [
            self._run_one(dag, task, f"{key}.{i}", _display_name(task, i, item), scope | scopes.item_scope(item))
            for i, item in enumerate(items)
        ]
        nodes = await asyncio.gather(*runs)
        dag.items[task.name] = [node.phase for node in nodes]
        self._end_group(dag, called, group, nodes)
        return group

    def _end_group(self, dag: _Dag, called: Template, group: Node, nodes: list[Node]) -> None:
        failed = [node for node in nodes if node.phase.is_failure]
        stopped = any(not node.phase.is_fulfilled for node in nodes)
        group.phase = failed[-1].phase if failed else Phase.FAILED if stopped else Phase.SUCCEEDED
        group.cause = failed[0].cause if failed else ""
        group.message = f"{failed[0].task}: {failed[0].message}" if failed else dag.stop.reason if stopped else ""
        group.outputs, group.result = scopes.gather_outputs(called, nodes)
        group.finished_at = self._timing.now()
        self._changed(group)

    async def _run_one(self, dag: _Dag, task: Task, key: str, name: str, scope: Scope) -> Node:
        called = self._spec.template(task.template)
        try:
            if not evaluate_when(when := substitute(task.when, scope)):
                return self.settle(key, name, called, Phase.SKIPPED, f"when '{when}' is false")
            inputs = scopes.bind_inputs(called, task.arguments, scope, _workflow_tags(scope))
        except (Unresolved, ExpressionError) as error:
            return self.settle(key, name, called, Phase.ERROR, str(error))
        had_to_wait = dag.slots is not None and dag.slots.locked()
        async with dag.slots or contextlib.nullcontext():
            if dag.stop.requested or (had_to_wait and dag.closed):
                return Node(key=key, task=name, template=called.name, type="Skipped")
            return await self.call(called, key, name, inputs, scope, dag.stop)

    def _scope(self, dag: _Dag) -> Scope:
        """Return the scope of the DAG with the tags of the tasks that have ended."""
        tasks = {task.name: task for task in dag.graph.tasks}
        scope = dict(dag.scope)
        for name, node in dag.nodes.items():
            called = self._spec.template(tasks[name].template)
            scope |= scopes.task_scope(dag.template.prefix, name, called, node)
        return scope

    def _omit(self, dag: _Dag, task: Task, reason: str) -> Node:
        return self.settle(dag.key_of(task), task.name, self._spec.template(task.template), Phase.OMITTED, reason)

    def _delete_items(self, group: str, count: int) -> None:
        """Delete the nodes of items that an earlier run had and this one does not."""
        for key in [key for key in self._state.nodes if key.startswith(f"{group}.")]:
            if int(key.removeprefix(f"{group}.").split(".")[0]) >= count:
                del self._state.nodes[key]

    def _changed(self, node: Node) -> None:
        self._run.save()
        if node.key:
            self._observer.on_step_change(step_from_node(node))


def _items(task: Task, scope: Scope) -> list[Any]:
    if task.with_items is not None:
        return [substitute(item, scope) for item in task.with_items]
    text = substitute(task.with_param or "", scope)
    try:
        items = parse_json(text)
    except ValueError:
        items = None
    if not isinstance(items, list):
        raise ValueError(f"withParam is not a JSON list: {text}")
    return items


def _display_name(task: Task, index: int, item: Any) -> str:
    text = item_text(item).replace("(", "").replace(")", "")
    return f"{task.name}({index}:{text if len(text) <= 40 else text[:37] + '...'})"


def _workflow_tags(scope: Mapping[str, str | MissingValue]) -> Scope:
    return {tag: value for tag, value in scope.items() if tag.startswith("workflow.")}
