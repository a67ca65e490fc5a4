"""The end of a local run, as the status that local and cluster runs share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from steps.report.gpu_usage import GpuNodes
from workflows.argo.phase import Phase
from workflows.runner.state import Attempt as NodeAttempt
from workflows.runner.state import Node, Run, State
from workflows.runs.status import RunStatus
from workflows.runs.step import Attempt, Step


@dataclass(frozen=True)
class Outcome:
    """The end of a local run."""

    run: RunStatus
    nodes: dict[str, Node]
    folder: Path

    @property
    def phase(self) -> Phase:
        """Succeeded, Failed, Error or Cancelled."""
        return Phase(self.run.phase)

    @property
    def message(self) -> str:
        """The verdict: one sentence on what went wrong; empty if nothing did."""
        return self.run.verdict

    @property
    def failed(self) -> str:
        """Key of the root failure; empty if there is none."""
        return self.run.cause.key if self.run.cause else ""

    @property
    def fix(self) -> str:
        """The fix that the failed step printed; may be empty."""
        return self.run.cause.fix if self.run.cause else ""

    @property
    def exit_code(self) -> int | None:
        """Exit code of the failed step."""
        return self.run.cause.exit_code if self.run.cause else None

    @property
    def command_exit_code(self) -> int:
        """Exit code of the run."""
        return self.run.exit_code

    @property
    def outputs(self) -> dict[str, dict[str, str]]:
        """Output parameters by task."""
        return {key: dict(node.outputs) for key, node in self.nodes.items() if node.outputs}


def outcome_of(run: Run) -> Outcome:
    """Return the outcome of a run that has ended."""
    status = status_from_state(run.state)
    if status.stopped:
        reason = f"{run.state.message or 'stopped'}; completed steps are kept: resume the run in {run.folder}"
        status = replace(status, stop_reason=reason)
    return Outcome(status, dict(run.state.nodes), run.folder)


def status_from_state(state: State) -> RunStatus:
    """Return the status of a local run."""
    stopped = state.phase is Phase.CANCELLED
    return RunStatus(
        name=state.name,
        phase=state.phase,
        steps=[step_from_node(node) for node in state.nodes.values()],
        message=state.message,
        created=_time(state.created_at),
        started=_time(state.started_at),
        finished=_time(state.finished_at),
        failed_step=state.cause if state.cause in state.nodes else "",
        time_limit_reached=state.time_limit_reached and not stopped,
        stopped=stopped,
        stop_reason=state.message,
        gpu_nodes=GpuNodes(),
    )


def step_from_node(node: Node) -> Step:
    """Return the step of a node."""
    return Step(
        key=node.key,
        type="Pod" if node.type == "Container" else node.type,
        display_name=node.task,
        phase=node.phase,
        message=node.message,
        fix=node.fix,
        started=_time(node.started_at),
        finished=_time(node.finished_at),
        outputs=dict(node.outputs),
        attempts=[_attempt(attempt) for attempt in node.attempts],
    )


def _attempt(attempt: NodeAttempt) -> Attempt:
    return Attempt(
        phase=attempt.phase,
        started=_time(attempt.started_at),
        message=attempt.message,
        exit_code=attempt.exit_code,
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
