"""What a run has come to, told in one sentence and in full."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workflows.argo.phase import Phase
from workflows.errors import Cancelled
from workflows.runner.state import Node, Run

_TIME_LIMIT = 6
_PASSED_ON = range(2, 7)


@dataclass(frozen=True)
class Outcome:
    """What a run has come to."""

    phase: Phase
    """Succeeded, Failed, Error or Cancelled."""
    message: str
    """The one thing that went wrong, in one sentence; empty when nothing did."""
    fix: str
    """What the failed step said to do about it; may be empty."""
    failed: str
    """Key of the leaf to which the failure goes back; empty when there is none."""
    exit_code: int | None
    """Exit code of that leaf."""
    outputs: dict[str, dict[str, str]]
    """Output parameters, by task."""
    nodes: dict[str, Node]
    folder: Path
    name: str
    time_limit_reached: bool
    """The workflow's ``activeDeadlineSeconds`` were over."""

    @property
    def command_exit_code(self) -> int:
        """0 succeeded, 5 cancelled, 6 out of time, the failed leaf's when that says why (2 to 6), else 1."""
        if self.phase is Phase.SUCCEEDED:
            return 0
        if self.phase is Phase.CANCELLED:
            return Cancelled.exit_code
        if self.time_limit_reached:
            return _TIME_LIMIT
        return self.exit_code if self.exit_code is not None and self.exit_code in _PASSED_ON else 1


def outcome_of(run: Run) -> Outcome:
    """The outcome of a run that has ended."""
    state = run.state
    cause = state.nodes.get(state.cause)
    return Outcome(
        phase=state.phase,
        message=_message(run, cause),
        fix=cause.fix if cause else "",
        failed=cause.key if cause else "",
        exit_code=cause.exit_code if cause else None,
        outputs={key: dict(node.outputs) for key, node in state.nodes.items() if node.outputs},
        nodes=dict(state.nodes),
        folder=run.folder,
        name=state.name,
        time_limit_reached=state.time_limit_reached,
    )


def _message(run: Run, cause: Node | None) -> str:
    state = run.state
    if state.phase is Phase.SUCCEEDED:
        return ""
    if state.phase is Phase.CANCELLED:
        return f"{state.message or 'stopped'}; what has succeeded is kept: resume the run in {run.folder}"
    if state.time_limit_reached or cause is None:
        return state.message
    where = cause.key.removeprefix("onExit.")
    handler = "the exit handler: " if cause.key.startswith("onExit") else ""
    return f"{handler}{where} {'failed' if cause.phase is Phase.FAILED else 'could not be done'}: {cause.message}"
