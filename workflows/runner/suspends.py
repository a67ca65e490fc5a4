"""A ``suspend`` template waits for a person: the answer given beforehand, or the one on the terminal.

The answers are its ``outputs.parameters`` with ``valueFrom.supplied``; the input of the same name says which there are
(Argo: docs/intermediate-inputs.md). Argo waits for ever, and so does a terminal; where there is none, the node fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from workflows.argo.phase import Phase
from workflows.argo.workflow import Spec, Template
from workflows.errors import Problem
from workflows.runner.control import Stop
from workflows.runner.state import Node
from workflows.runs.observer import Observer


@dataclass(frozen=True)
class Question:
    """One answer that a node waits for."""

    name: str
    options: Sequence[str]
    """Empty: any text."""
    description: str

    @property
    def form(self) -> str:
        """The answers that may be given, for people."""
        return " or ".join(self.options) or "any text"


def questions(template: Template) -> list[Question]:
    """What a ``suspend`` template asks; one that asks nothing is still to be told to go on, by its own name."""
    inputs = {parameter.name: parameter for parameter in template.inputs.parameters}
    asked = [
        Question(output.name, inputs[output.name].enum, inputs[output.name].description)
        for output in template.outputs.parameters
        if output.name in inputs
    ]
    return asked or [Question(template.name, ["YES"], "Go on?")]


def all_questions(spec: Spec) -> dict[str, Question]:
    """The questions of all ``suspend`` templates, by name."""
    return {
        question.name: question
        for template in spec.templates
        if template.suspend is not None
        for question in questions(template)
    }


def problems(template: Template, path: str) -> list[Problem]:
    """What is wrong with a ``suspend`` template."""
    found = []
    for field in ("retryStrategy", "timeout", "activeDeadlineSeconds"):
        if template.model_dump(by_alias=True)[field] is not None:
            found.append(Problem(f"`{field}` is honoured on containers alone", path=f"{path}.{field}"))
    inputs = {parameter.name for parameter in template.inputs.parameters}
    for output in template.outputs.parameters:
        where = f"{path}.outputs.parameters[{output.name}]"
        if output.value_from is None or output.value_from.supplied is None:
            fix = "write valueFrom: {supplied: {}}"
            found.append(Problem("an output of a suspend is supplied by who resumes it", path=where, fix=fix))
        elif output.name not in inputs:
            fix = "declare an input of the same name, with enum and default"
            found.append(Problem("nothing says which answers there are", path=where, fix=fix))
    return found


def terminal() -> TextIO | None:
    """Where a person can be asked; None when nobody is there."""
    there = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    return sys.stdin if there else None


async def wait(
    template: Template, node: Node, given: Mapping[str, str], stop: Stop, observer: Observer, ask: TextIO | None
) -> None:
    """Bring a node to its end: Succeeded with the answers as outputs, or Failed when nobody gives them."""
    for question in questions(template):
        answer = given.get(question.name)
        if answer is None and ask is not None:
            answer = await _ask(question, ask, stop, observer)
        if answer is None:
            node.phase, node.cause = Phase.FAILED, node.key
            node.message = stop.why or f"nobody is here to answer `{question.name}` ({question.form})"
            node.fix = "" if stop.why else f"add the answer: {_flags(question)}"
            return
        node.outputs[question.name] = answer
    node.phase = Phase.SUCCEEDED


def _flags(question: Question) -> str:
    return " or ".join(f"-p {question.name}={option}" for option in question.options or ["TEXT"])


async def _ask(question: Question, ask: TextIO, stop: Stop, observer: Observer) -> str | None:
    observer.on_prompt(f"{question.description or question.name}\n{question.name} ({question.form}): ")
    try:
        while (line := await _line(ask, stop)) is not None:
            answer = line.strip()
            if answer and (not question.options or answer in question.options):
                return answer
            observer.on_prompt(f"answer {question.form}: ")
        return None
    finally:
        observer.on_prompt_end()


async def _line(ask: TextIO, stop: Stop) -> str | None:
    """The next line typed; None at the end of the input, or when the run is to stop."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(ask.fileno(), typed.set)
    waiting = [asyncio.ensure_future(event.wait()) for event in (typed, stop.event)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(ask.fileno())
        for each in waiting:
            each.cancel()
    return None if stop.requested else ask.readline() or None
