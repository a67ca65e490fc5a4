"""Tasks of a DAG and their dependencies; loops of tasks and steps (Argo: ``validateDAG``, ``addItemsToScope``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from graphlib import CycleError, TopologicalSorter

from workflows.argo import expressions
from workflows.argo.document import Document, Task, Template, section
from workflows.argo.tags import TAG
from workflows.field_path import join
from workflows.lint.rules.checked_values import checked_value
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

RESULTS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed")
_PARAMETER = re.compile(r"\{\{[-a-zA-Z0-9]+(\.[-a-zA-Z0-9_]+)*\}\}")
"""A tag that Argo accepts as a name: ``isParameter``."""
_TASK_RESULT = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*\.([A-Za-z]+)")


def no_tasks(document: Document) -> Iterator[Violation]:
    """A `dag` has no tasks, or `steps` has no steps."""
    for template in document.templates:
        # The schema reports a dag without `tasks` as a missing field.
        empty = template.type == "steps" or "tasks" in section(template.value, "dag")
        if template.type in ("dag", "steps") and empty and not template.tasks:
            yield Violation(
                join(template.path, template.type), f"{template.label} has no tasks", "add a task or a step"
            )


def depends_syntax(document: Document) -> Iterator[Violation]:
    """A `depends` does not parse, or uses an unknown result. Argo reads it only at runtime."""
    for task in _dag_tasks(document):
        if task.depends:
            try:
                expressions.parse_depends(task.depends)
            except expressions.ExpressionError as error:
                unknown_results = [word for word in _TASK_RESULT.findall(task.depends) if word not in RESULTS]
                message, fix = str(error), "use an expression such as a && (b.Succeeded || !c.Failed)"
                if unknown_results:
                    message = f"unknown result `{unknown_results[0]}`"
                    fix = unknown(unknown_results[0], RESULTS)
                yield Violation(join(task.path, "depends"), message, fix)
            except RecursionError:
                yield Violation(join(task.path, "depends"), "nested too deeply", "remove parentheses")


def unknown_dependency(document: Document) -> Iterator[Violation]:
    """`depends` or `dependencies` refers to a task that is not in the DAG."""
    for task in _dag_tasks(document):
        names = task.within.by_name
        for field, parents in (("depends", _tasks_in_depends(task)), ("dependencies", task.dependencies)):
            for name in dict.fromkeys(parents):
                if name not in names:
                    yield Violation(join(task.path, field), f"unknown task `{name}`", unknown(name, names))


def dependency_cycle(document: Document) -> Iterator[Violation]:
    """The dependencies of a DAG's tasks form a cycle."""
    for template in _dags(document):
        if template.graph is None:
            continue
        try:
            TopologicalSorter(template.graph.parents).prepare()
        except CycleError as error:
            cycle = " -> ".join(error.args[1])
            yield Violation(f"{template.path}.dag.tasks", f"dependency cycle: {cycle}", "remove one dependency")


def depends_beside_dependencies(document: Document) -> Iterator[Violation]:
    """One DAG has both `depends` and `dependencies`."""
    for template in _dags(document):
        if any(task.depends for task in template.tasks):
            for task in template.tasks:
                if task.dependencies:
                    fix = f"use depends: {' && '.join(task.dependencies)}"
                    yield Violation(
                        join(task.path, "dependencies"),
                        "`dependencies` cannot be combined with `depends`",
                        fix,
                    )


def continue_on(document: Document) -> Iterator[Violation]:
    """A task has `continueOn` in a DAG with `depends`, which selects results instead."""
    for template in _dags(document):
        if any(task.depends for task in template.tasks):
            for task in template.tasks:
                if "continueOn" in task.value:
                    fix = f"remove it, and use depends: {task.name}.Succeeded || {task.name}.Failed in later tasks"
                    yield Violation(
                        join(task.path, "continueOn"), "`continueOn` cannot be combined with `depends`", fix
                    )


def items_result(document: Document) -> Iterator[Violation]:
    """`depends` uses `AnySucceeded` or `AllFailed` of a task without items."""
    for task in _dag_tasks(document):
        expression = _parsed(task)
        for name, result in expressions.results_of(expression) if expression is not None else ():
            other = task.within.by_name.get(name)
            if result in ("AnySucceeded", "AllFailed") and other and not other.loops:
                fix = f"use {name}.{'Succeeded' if result == 'AnySucceeded' else 'Failed'}"
                yield Violation(
                    join(task.path, "depends"), f"`{result}` is only for tasks with items; `{name}` has none", fix
                )


def task_digit(document: Document) -> Iterator[Violation]:
    """The name of a task begins with a digit in a DAG with `depends` or `dependencies`."""
    for template in _dags(document):
        uses_depends = any(task.depends for task in template.tasks)
        for task in template.tasks:
            if task.name[:1].isdecimal() and (uses_depends or task.dependencies):
                yield Violation(
                    join(task.path, "name"), f"`{task.name}` begins with a digit", f"rename it to task-{task.name}"
                )


def dag_target(document: Document) -> Iterator[Violation]:
    """`target` refers to a task that is not in the DAG, also through a parameter: Argo inserts its value first."""
    for template in _dags(document):
        target = str(section(template.value, "dag").get("target", ""))
        for name in TAG.sub(partial(checked_value, document, template), target).split(" ") if target else ():
            if not _PARAMETER.search(name) and name not in template.by_name:
                fix = (
                    unknown(name, template.by_name) if template.tasks and name else "use names with one space between"
                )
                yield Violation(f"{template.path}.dag.target", f"unknown task `{name}`", fix)


def one_loop(document: Document) -> Iterator[Violation]:
    """A task or step has more than one of `withItems`, `withParam`, `withSequence`; or a sequence has both `count` and
    `end`.
    """
    for task in _tasks(document):
        if len(task.loops) > 1:
            yield Violation(task.path, f"{' cannot be combined with '.join(task.loops)}", "keep one of them")
        if {"count", "end"} <= set(section(task.value, "withSequence")):
            yield Violation(join(task.path, "withSequence"), "count cannot be combined with end", "keep one of them")


def loop_list(document: Document) -> Iterator[Violation]:
    """`withParam` is a string that is not a JSON list."""
    for task in _tasks(document):
        text = task.value.get("withParam")
        if isinstance(text, str) and text and "{{" not in text:
            try:
                is_list = isinstance(json.loads(text), list)
            except (ValueError, RecursionError):
                is_list = False
            if not is_list:
                fix = """use a list such as '["a", "b"]', or a tag with a list as value"""
                yield Violation(join(task.path, "withParam"), "`withParam` is not a JSON list", fix)


def _dags(document: Document) -> list[Template]:
    return [template for template in document.templates if template.type == "dag"]


def _dag_tasks(document: Document) -> list[Task]:
    return [task for template in _dags(document) for task in template.tasks]


def _tasks(document: Document) -> list[Task]:
    return [task for template in document.templates for task in template.tasks]


def _parsed(task: Task) -> expressions.Expression | None:
    try:
        return expressions.parse_depends(task.depends) if task.depends else None
    except (expressions.ExpressionError, RecursionError):
        return None


def _tasks_in_depends(task: Task) -> list[str]:
    expression = _parsed(task)
    return expressions.tasks_of(expression) if expression is not None else []
