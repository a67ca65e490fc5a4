"""Logs of a run's steps, from existing and future pods, across retries and lost connections."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from steps.runtime.retry import Backoff
from workflows.cluster import backoff as backoffs
from workflows.cluster import watch
from workflows.cluster.failures import ApiFailure
from workflows.cluster.read_run import read_run
from workflows.cluster.workflows_api import Workflows
from workflows.runs.status import RunStatus
from workflows.runs.step import Attempt, Step

OnLine = Callable[[str, str], None]
"""Receives the label of a pod and a line of its log."""
OnMessage = Callable[[str], None]

_EXECUTOR_LINE = re.compile(r"time=\S+ level=\w+ .*\bargo=true\b|Error: exit status \d+$")
TAIL_LINES = 60
JOIN_SECONDS = 60.0
"""Time limit for the logs to end after the run has ended."""
RETENTION = (
    "a finished step's pod is deleted after ten minutes (podGC); look in the cluster's log store, or in the artifact "
    "repository if archiveLogs is on"
)


def print_logs(api: Workflows, run: RunStatus, step: str, on_line: OnLine, on_message: OnMessage) -> None:
    """Pass the existing log lines to ``on_line``, pod by pod, in order of their start; ``step``: "" for all steps."""
    pods = [(item, attempt) for item in run.steps if step in ("", *_names(item)) for attempt in item.attempts]
    if not pods:
        on_message(f"{run.name}: {run.message or 'no step has started yet'}")
    for item, attempt in sorted(pods, key=lambda pod: str(pod[1].started)):
        if not attempt.is_started:
            on_message(f"{item.key}: {item.message or 'its pod has not started yet'}")
            continue
        _Log(api, run.name, _label(item, attempt), attempt.pod, on_line, on_message).read(follow=False)


def follow(
    api: Workflows,
    name: str,
    step: str,
    on_line: OnLine,
    on_message: OnMessage,
    new_backoff: Callable[[], Backoff] = backoffs.new_backoff,
) -> RunStatus:
    """Pass the log lines of all pods to ``on_line`` until the run or the step has ended; return the last status.

    Lines of concurrent steps are interleaved.
    """
    logs: dict[str, _Log] = {}
    run = None
    for workflow in watch.follow(api, name, on_message, new_backoff()):
        run = read_run(workflow)
        selected = [item for item in run.steps if step in ("", *_names(item))]
        for item in selected:
            for attempt in item.attempts:
                if attempt.is_started and attempt.pod not in logs:
                    label = _label(item, attempt)
                    logs[attempt.pod] = _Log(api, name, label, attempt.pod, on_line, on_message, new_backoff())
                    logs[attempt.pod].start()
                if attempt.is_ended and attempt.pod in logs:
                    logs[attempt.pod].ended.set()
        if step and all(item.is_ended for item in selected):
            break
    for log in logs.values():
        log.ended.set()
        log.join()
    if run is None:
        raise AssertionError("a watch yields at least one state")
    return run


def tail_errors(api: Workflows, run: RunStatus) -> str:
    """Return the last lines of the failed step's log, from ``error:`` on; empty if there are none."""
    if run.cause is None or not run.cause.attempts:
        return ""
    try:
        lines = [_split(line)[1] for line in api.log(run.name, run.cause.attempts[-1].pod, tail=TAIL_LINES)]
    except ApiFailure:
        return ""
    lines = [line for line in lines if not _is_from_executor(line)]
    errors = [index for index, line in enumerate(lines) if line.startswith("error:")]
    return "\n".join(lines[errors[-1] :][:10]) if errors else ""


def _is_from_executor(line: str) -> bool:
    """Return True for a line of Argo's executor, which shares the main container's log."""
    return _EXECUTOR_LINE.match(line) is not None


def _names(step: Step) -> tuple[str, str]:
    return step.key, step.key.rpartition(".")[2]


def _label(step: Step, attempt: Attempt) -> str:
    number = step.attempts.index(attempt)
    return f"{step.key}, attempt {number + 1}" if number else step.key


@dataclass
class _Log:
    """The log of one pod, read to its end, each line once."""

    api: Workflows
    run: str
    label: str
    pod: str
    on_line: OnLine
    on_message: OnMessage
    backoff: Backoff = field(default_factory=backoffs.new_backoff)
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the pod has ended and its log is complete."""

    def __post_init__(self) -> None:
        self._last = ""
        self._seen: set[str] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read in a thread."""
        self._thread = threading.Thread(target=self.read, kwargs={"follow": True}, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the log is read, but not for a dead connection."""
        if self._thread:
            self._thread.join(JOIN_SECONDS)
            if self._thread.is_alive():
                command = f"argotune logs {self.run} -n {self.api.namespace}"
                self.on_message(f"{self.label}: the end of its log is missing; print it with {command}")

    def read(self, *, follow: bool) -> None:
        """Pass all lines on, reconnecting where the stream broke off, until the pod has ended."""
        while True:
            is_last = not follow or self.ended.is_set()
            retry_after = None
            try:
                for line in self._new_lines(follow=not is_last):
                    self.on_line(self.label, line)
                    self.backoff.reset()
                if is_last:
                    return
            except ApiFailure as failure:
                if self._is_final(failure, is_last):
                    return
                retry_after = failure.retry_after
            self.backoff.pause(retry_after)

    def _is_final(self, failure: ApiFailure, is_last: bool) -> bool:
        """Return True, and report why, if reading again cannot succeed."""
        if failure.status == 404:
            if is_last:
                self.on_message(f"{self.label}: {'the rest of ' if self._last else ''}its log is gone; {RETENTION}")
            return is_last
        if failure.status == 400 and is_last:
            self.on_message(f"{self.label}: no log: {failure.message.rpartition(': ')[2]}")
            return True
        if failure.status != 400 and not failure.is_transient:
            self.on_message(f"{self.label}: {failure}")
            return True
        if self.backoff.failing_seconds() > watch.MAX_DISCONNECTED_SECONDS:
            self.on_message(f"{self.label}: {failure.message}; stopped following its log")
            return True
        return False

    def _new_lines(self, *, follow: bool) -> Iterator[str]:
        """Yield lines later than the last one, and those of the same time that were not yielded yet."""
        since, seen = self._last, set(self._seen)
        for line in self.api.log(self.run, self.pod, follow=follow, since=since):
            time, text = _split(line)
            if time and (time < since or (time == since and text in seen)):
                continue
            if time != self._last:
                self._last, self._seen = time or self._last, set()
            self._seen.add(text)
            if not _is_from_executor(text):
                yield text


def _split(line: str) -> tuple[str, str]:
    """Return the timestamp that the server prefixed, and the text of a line."""
    time, _, text = line.partition(" ")
    return (time, text) if time[:4].isdigit() and "T" in time else ("", line)
