"""``suspend`` templates wait for an answer: a parameter of the run, or a line on the terminal.

The answers are ``outputs.parameters`` with ``valueFrom.supplied``; the input of the same name lists the options (Argo:
docs/intermediate-inputs.md). Argo waits without limit, and so does the terminal; without a terminal, the node fails.
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
    """An answer that a node waits for."""

    name: str
    options: Sequence[str]
    """Accepted answers; empty for any text."""
    description: str

    @property
    def form(self) -> str:
        """The accepted answers in messages."""
        return " or ".join(self.options) or "any text"


def questions(template: Template) -> list[Question]:
    """Return the questions of a ``suspend`` template; one without outputs asks to continue, under its own name."""
    inputs = {parameter.name: parameter for parameter in template.inputs.parameters}
    questions = [
        Question(output.name, inputs[output.name].enum, inputs[output.name].description)
        for output in template.outputs.parameters
        if output.name in inputs
    ]
    return questions or [Question(template.name, ["YES"], "Continue?")]


def all_questions(spec: Spec) -> dict[str, Question]:
    """Return the questions of all ``suspend`` templates by name."""
    return {
        question.name: question
        for template in spec.templates
        if template.suspend is not None
        for question in questions(template)
    }


def check_suspend(template: Template, path: str) -> list[Problem]:
    """Return the problems of the outputs of a ``suspend`` template."""
    problems = []
    inputs = {parameter.name for parameter in template.inputs.parameters}
    for output in template.outputs.parameters:
        output_path = f"{path}.outputs.parameters[{output.name}]"
        if output.value_from is None or output.value_from.supplied is None:
            fix = "write valueFrom: {supplied: {}}"
            problems.append(Problem("an output of a suspend must be `supplied`", path=output_path, fix=fix))
        elif output.name not in inputs:
            fix = "declare an input of the same name, with enum and default"
            problems.append(Problem("the options of the answer are missing", path=output_path, fix=fix))
    return problems


def terminal() -> TextIO | None:
    """Return standard input if it is an interactive terminal, else None."""
    is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    return sys.stdin if is_terminal else None


async def wait(
    template: Template, node: Node, answers: Mapping[str, str], stop: Stop, observer: Observer, ask: TextIO | None
) -> None:
    """Complete a node: Succeeded with the answers as outputs, or Failed when an answer is missing."""
    for question in questions(template):
        answer = answers.get(question.name)
        if answer is None and ask is not None:
            answer = await _ask(question, ask, stop, observer)
        if answer is None:
            node.phase, node.cause = Phase.FAILED, node.key
            node.message = stop.reason or f"no terminal to answer `{question.name}` ({question.form})"
            node.fix = "" if stop.reason else f"pass the answer: {_flags(question)}"
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
    """Return the next line of input; None at its end, or when a stop is requested."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(ask.fileno(), typed.set)
    waiting = [asyncio.ensure_future(event.wait()) for event in (typed, stop.event)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(ask.fileno())
        for future in waiting:
            future.cancel()
    return None if stop.requested else ask.readline() or None
