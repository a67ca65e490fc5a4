"""A Workflow document read into what people and programs ask of a run. Pure: nothing here touches a cluster.

How the columns come about:

=================  ====================================================================================
NAME               the Workflow's
INSTANCE           ``--instance-type`` of its step provision
RESOURCEREADY      step provision: True when it succeeded, False when it failed or was never reached
INFERENCEREADY     step rollout, in the same way
JOBSTARTED         True once step tune has started
WORKSPACEREADY     True when the run succeeded and no gate said no; False when it ended otherwise
AGE                since it was created
=================  ====================================================================================

``Unknown`` where that is still open, ``-`` where the run has no such step, or leaves out what is in service already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from workflows.cluster.nodes import moment, read_nodes
from workflows.cluster.steps import EXIT, Step, read_steps
from workflows.errors import Cancelled, GateFailed, gate_failure_message

TRUE, FALSE, OPEN, NONE = "True", "False", "Unknown", "-"
TIME_LIMIT = 6
_PASSED_ON = range(2, 7)
_DONE = ("Succeeded", "Failed", "Error")


@dataclass(frozen=True)
class RunStatus:
    """How a run stands."""

    name: str
    namespace: str
    workspace: str
    """Name of the Workspace it was compiled from; may be empty."""
    instance: str
    phase: str
    """``Pending`` until the controller has looked at it."""
    message: str
    progress: str
    """Finished pods of those known so far, ``3/8``."""
    created: datetime | None
    started: datetime | None
    finished: datetime | None
    steps: list[Step] = field(default_factory=list)
    """In the order of the document, the exit handler's last; without those that came of retries."""
    time_limit_reached: bool = False
    stopped: bool = False

    @property
    def done(self) -> bool:
        """Nothing more will happen."""
        return self.phase in _DONE

    @property
    def resource_ready(self) -> str:
        """Whether there are nodes to compute on."""
        return self._condition("provision")

    @property
    def inference_ready(self) -> str:
        """Whether the adapter is served."""
        return self._condition("rollout")

    @property
    def job_started(self) -> str:
        """Whether tuning has begun."""
        step = self.step("tune")
        if step is None or self._nothing_new:
            return NONE
        return TRUE if step.started else FALSE

    @property
    def workspace_ready(self) -> str:
        """Whether all that the Workspace asks for is there."""
        return (TRUE if self.exit_code == 0 else FALSE) if self.done else OPEN

    @property
    def cause(self) -> Step | None:
        """The step to which the failure of the run goes back: the first that failed by itself."""
        failed = [step for step in self.steps if step.failed and not step.consequence]
        main = [step for step in failed if not step.in_exit_handler]
        return min(main or failed, key=lambda step: (step.finished is None, step.finished), default=None)

    @property
    def refused_by(self) -> Step | None:
        """The step that said no: the gate of evaluate, or who was asked for approval."""
        for step in self.steps:
            said_no = step.type == "Suspend" and "NO" in step.outputs.values()
            if step.phase == "Succeeded" and (said_no or step.outputs.get("verdict") == "fail"):
                return step
        return None

    @property
    def exit_code(self) -> int:
        """As docs/ARCHITECTURE.md lists them; 0 too while it runs."""
        if not self.done:
            return 0
        if self.phase == "Succeeded":
            return GateFailed.exit_code if self.refused_by else 0
        if self.time_limit_reached:
            return TIME_LIMIT
        if self.stopped:
            return Cancelled.exit_code
        code = self.cause.exit_code if self.cause else None
        return code if code is not None and code in _PASSED_ON else 1

    @property
    def verdict(self) -> str:
        """How it ended, in one sentence; empty where all is well or open."""
        if not self.done:
            return ""
        if self.phase == "Succeeded":
            return self._refusal()
        if self.time_limit_reached:
            return "its time limit was reached"
        if self.stopped:
            return "it was stopped"
        if self.cause is None:
            return self.message
        place = self.cause.key.removeprefix(EXIT)
        handler = "the exit handler: " if self.cause.in_exit_handler else ""
        return f"{handler}{place} failed: {self.cause.message or self.message}"

    @property
    def asking(self) -> list[Step]:
        """Steps that wait for a person."""
        return [step for step in self.steps if step.type == "Suspend" and step.phase == "Running"]

    def step(self, name: str) -> Step | None:
        """The step of that name (of the exit handler too), or None."""
        return next((step for step in self.steps if name in (step.key, step.key.removeprefix(EXIT))), None)

    def _refusal(self) -> str:
        step = self.refused_by
        if step is None:
            return ""
        if step.type == "Suspend":
            return f"{step.key}: the answer was NO; nothing was rolled out"
        return gate_failure_message(step.outputs)

    @property
    def _nothing_new(self) -> bool:
        """A turn of a schedule that found data and settings as they are in service."""
        check = self.step("check")
        return check is not None and check.outputs.get("changed") == "false"

    def _condition(self, name: str) -> str:
        step = self.step(name)
        if step is None or (self._nothing_new and step.phase != "Succeeded"):
            return NONE
        if step.phase == "Succeeded":
            return TRUE
        return FALSE if step.ended or self.done else OPEN


def read(workflow: Mapping[str, Any]) -> RunStatus:
    """What a Workflow document says; what its controller has not written yet is open."""
    metadata, status = workflow["metadata"], workflow.get("status") or {}
    spec = status.get("storedWorkflowTemplateSpec") or workflow.get("spec") or {}
    nodes, unreadable = read_nodes(workflow)
    steps = read_steps(workflow, spec, nodes)
    message = str(status.get("message") or unreadable)
    shutdown = (workflow.get("spec") or {}).get("shutdown") or spec.get("shutdown")
    return RunStatus(
        name=str(metadata["name"]),
        namespace=str(metadata.get("namespace") or ""),
        workspace=str((metadata.get("labels") or {}).get("argotune.dev/workspace") or ""),
        instance=_instance(spec),
        phase=str(status.get("phase") or "Pending"),
        message=message,
        progress=str(status.get("progress") or ""),
        created=moment(metadata.get("creationTimestamp")),
        started=moment(status.get("startedAt")),
        finished=moment(status.get("finishedAt")),
        steps=steps,
        time_limit_reached=_out_of_time(spec, steps),
        stopped=bool(shutdown) or message.startswith("Stopped with strategy"),
    )


def _instance(spec: Mapping[str, Any]) -> str:
    for template in spec.get("templates") or []:
        words = (template.get("container") or {}).get("args") or []
        if template.get("name") == "provision" and "--instance-type" in words[:-1]:
            return str(words[words.index("--instance-type") + 1])
    return NONE


def _out_of_time(spec: Mapping[str, Any], steps: list[Step]) -> bool:
    """Whether ``activeDeadlineSeconds`` of the whole run ended it (Argo: controller/exec_control.go)."""
    return bool(spec.get("activeDeadlineSeconds")) and any("exceeded its deadline" in step.message for step in steps)
