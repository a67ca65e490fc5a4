"""The status of a run: KAITO's columns, root cause, verdict and exit code, the same for local and cluster runs.

How the columns are computed:

=================  ====================================================================================
NAME               name of the Workflow
INSTANCE           ``--instance-type`` of step provision
RESOURCEREADY      step provision: True if it succeeded, False if it failed or was never reached; Unknown while the pod
                   of a later step waits for a node
INFERENCEREADY     step rollout, in the same way
JOBSTARTED         True once step tune has started
WORKSPACEREADY     True if the run succeeded and no gate failed; False if it ended otherwise
AGE                time since the Workflow was created
=================  ====================================================================================

``Unknown`` while that is undecided; ``-`` where the run has no such step, or skips it because nothing has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from steps.report.gpu_usage import GpuNodes
from steps.serving.benchmark_result import Benchmark
from workflows.argo import exit_codes
from workflows.argo.phase import Phase
from workflows.errors import Cancelled, GateFailed, gate_failure_message
from workflows.runs import expected_time
from workflows.runs.step import Step

TRUE, FALSE, UNKNOWN, NONE = "True", "False", "Unknown", "-"
LATEST = "@latest"
"""Name of the newest run in command lines."""
WORKSPACE_LABEL = "argotune.dev/workspace"
UNSCHEDULABLE = "Unschedulable"
"""Beginning of Argo's message for a pod that no node can run."""
TUNE_SECONDS = "argotune.dev/expected-tune-seconds"
"""Annotation with the estimate of the training's time."""
BENCHMARK = "argotune.dev/benchmark"
"""Annotation of a Workflow with the last benchmark of its endpoint."""
CLUSTER, LOCAL = "cluster", "local"
ENDED = (Phase.SUCCEEDED, Phase.FAILED, Phase.ERROR, Phase.CANCELLED)


@dataclass(frozen=True)
class RunStatus:
    """The status of one run."""

    name: str
    phase: str
    """``Pending`` until the controller has seen the Workflow."""
    steps: list[Step] = field(default_factory=list)
    """In document order, the exit handler's last; without single attempts."""
    message: str = ""
    where: str = CLUSTER
    """``cluster`` or ``local``."""
    namespace: str = ""
    workspace: str = ""
    """Name of the Workspace it was compiled from; may be empty."""
    instance: str = NONE
    progress: str = ""
    """Finished pods of those known so far, ``3/8``."""
    expected_tune_seconds: float = 0
    """Estimate of the training's time; 0: unknown."""
    gpu_nodes: GpuNodes | None = None
    """Nodes that the run pays for; None: unknown."""
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    failed_step: str = ""
    """Key of the step that the local runner found to be the root failure; empty: the first step that failed."""
    time_limit_reached: bool = False
    stopped: bool = False
    benchmark: Benchmark | None = None
    """Result of the last ``argotune bench`` of its endpoint."""
    stop_reason: str = ""
    """Message of the time limit or of the stop; empty: a standard one."""

    @property
    def is_ended(self) -> bool:
        """True if the phase is final."""
        return self.phase in ENDED

    @property
    def percent(self) -> int:
        """Share of the run's expected time that is done, in percent."""
        return expected_time.percent(self.steps, self.expected_tune_seconds)

    @property
    def resource_ready(self) -> str:
        """Column RESOURCEREADY: there are nodes to compute on."""
        is_waiting = any(step.phase == "Pending" and step.message.startswith(UNSCHEDULABLE) for step in self.steps)
        condition = self._condition("provision")
        return UNKNOWN if is_waiting and condition == TRUE else condition

    @property
    def inference_ready(self) -> str:
        """Column INFERENCEREADY: the adapter is served."""
        return self._condition("rollout")

    @property
    def job_started(self) -> str:
        """Column JOBSTARTED: tuning has started."""
        step = self.step("tune")
        if step is None or self._is_unchanged:
            return NONE
        return TRUE if step.started else FALSE

    @property
    def workspace_ready(self) -> str:
        """Column WORKSPACEREADY: everything that the Workspace requests is done."""
        if not self.is_ended:
            return UNKNOWN
        return TRUE if self.exit_code == 0 else FALSE

    @property
    def cause(self) -> Step | None:
        """The root failure: the first step that failed, not counting consequences and tolerated failures.

        None if the run succeeded.
        """
        if self.phase == "Succeeded":
            return None
        if self.failed_step:
            return self.step(self.failed_step)
        failed = [step for step in self.steps if step.is_failed and not (step.is_consequence or step.is_tolerated)]
        main = [step for step in failed if not step.in_exit_handler]
        return min(main or failed, key=lambda step: (step.finished is None, step.finished), default=None)

    @property
    def rejected_by(self) -> Step | None:
        """The gate that failed or the approval that was answered NO; None if an adapter was packaged nevertheless.

        In a search, candidates can fail the gate while another one passes.
        """
        package = self.step("package")
        is_packaged = package is not None and package.phase == "Succeeded"
        for step in self.steps:
            rejected = step.type == "Suspend" and "NO" in step.outputs.values()
            gate_failed = step.outputs.get("verdict") == "fail" and not is_packaged
            if step.phase == "Succeeded" and (rejected or gate_failed):
                return step
        return None

    @property
    def exit_code(self) -> int:
        """The exit code as listed in docs/CLI.md; 0 while the run is running."""
        if not self.is_ended:
            return 0
        if self.phase == "Succeeded":
            return GateFailed.exit_code if self.rejected_by else 0
        if self.stopped:
            return Cancelled.exit_code
        if self.time_limit_reached:
            return exit_codes.TIME_LIMIT
        code = self.cause.exit_code if self.cause else None
        return code if code in exit_codes.NOT_RETRYABLE else exit_codes.FAILED

    @property
    def verdict(self) -> str:
        """One sentence on why the run did not succeed; empty if it did, or has not ended."""
        if not self.is_ended:
            return ""
        if self.phase == "Succeeded":
            return self._rejection()
        if self.stopped:
            return self.stop_reason or "the run was stopped"
        if self.time_limit_reached:
            return self.stop_reason or "the time limit of the run was reached"
        if self.cause is None:
            return self.message
        handler = "the exit handler: " if self.cause.in_exit_handler else ""
        return f"{handler}{self.cause.name} failed: {self.cause.message or self.message}"

    @property
    def pending_approvals(self) -> list[Step]:
        """Suspended steps that wait for the user."""
        return [step for step in self.steps if step.type == "Suspend" and step.phase == "Running"]

    def step(self, name: str) -> Step | None:
        """Return the step of that key, with or without the prefix of the exit handler; None if there is none."""
        return next((step for step in self.steps if name in (step.key, step.name)), None)

    def outputs(self, name: str) -> dict[str, str]:
        """Return the output parameters of a step; empty if there is no such step."""
        step = self.step(name)
        return step.outputs if step else {}

    def _rejection(self) -> str:
        step = self.rejected_by
        if step is None:
            return ""
        if step.type == "Suspend":
            return f"{step.key}: the answer was NO; nothing was rolled out"
        return gate_failure_message(step.outputs)

    @property
    def _is_unchanged(self) -> bool:
        """True if a scheduled run found the data and settings of the live adapter."""
        return self.outputs("check").get("changed") == "false"

    def _condition(self, name: str) -> str:
        step = self.step(name)
        if step is None or (self._is_unchanged and step.phase != "Succeeded"):
            return NONE
        if step.phase == "Succeeded":
            return TRUE
        return FALSE if step.is_ended or self.is_ended else UNKNOWN
