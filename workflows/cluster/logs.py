"""Log lines of a run's steps: of pods that are there, and of those to come, across retries and lost connections."""

from __future__ import annotations

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

Emit = Callable[[str, str], None]
"""Takes the label of a pod, and a line of its log."""
Tell = Callable[[str], None]

LAST_WORDS = 60
JOIN = 60.0
"""Seconds after the end of the run in which its logs should end too."""
WHERE = (
    "a finished step's pod is deleted after ten minutes (podGC); look in the cluster's log store, or in the artifact "
    "repository where archiveLogs is on"
)


def print_logs(api: Workflows, run: RunStatus, step: str, emit: Emit, tell: Tell) -> None:
    """The log lines there are, pod by pod, in the order of their start."""
    pods = [(one, attempt) for one in run.steps if step in ("", *_names(one)) for attempt in one.attempts]
    if not pods:
        tell(f"{run.name}: {run.message or 'nothing of it has started yet'}")
    for one, attempt in sorted(pods, key=lambda pod: str(pod[1].started)):
        if not attempt.is_started:
            tell(f"{one.key}: {one.message or 'its pod has not started yet'}")
            continue
        _Log(api, run.name, _label(one, attempt), attempt.pod, emit, tell).print(follow=False)


def follow(
    api: Workflows,
    name: str,
    step: str,
    emit: Emit,
    tell: Tell,
    new_backoff: Callable[[], Backoff] = backoffs.new_backoff,
) -> RunStatus:
    """The log lines of all pods, until the run, or the step, has ended; gives the run's last state.

    Lines of steps that run side by side are mixed as they come.
    """
    logs: dict[str, _Log] = {}
    run = None
    for workflow in watch.follow(api, name, tell, new_backoff()):
        run = read_run(workflow)
        wanted = [one for one in run.steps if step in ("", *_names(one))]
        for one in wanted:
            for attempt in one.attempts:
                if attempt.is_started and attempt.pod not in logs:
                    log = _Log(api, name, _label(one, attempt), attempt.pod, emit, tell, new_backoff())
                    logs[attempt.pod] = log
                    log.start()
                if attempt.is_ended and attempt.pod in logs:
                    logs[attempt.pod].ended.set()
        if step and all(one.is_ended for one in wanted):
            break
    for log in logs.values():
        log.ended.set()
        log.join()
    if run is None:
        raise AssertionError("a watch gives one state at least")
    return run


def tail_errors(api: Workflows, run: RunStatus) -> str:
    """What the step that failed said at last: the lines from ``error:`` on; empty where its pod says nothing more."""
    if run.cause is None or not run.cause.attempts:
        return ""
    try:
        found = [_split(line)[1] for line in api.log(run.name, run.cause.attempts[-1].pod, tail=LAST_WORDS)]
    except ApiFailure:
        return ""
    errors = [place for place, line in enumerate(found) if line.startswith("error:")]
    return "\n".join(found[errors[-1] :][:10]) if errors else ""


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
    emit: Emit
    tell: Tell
    backoff: Backoff = field(default_factory=backoffs.new_backoff)
    ended: threading.Event = field(default_factory=threading.Event)
    """The pod has ended: what is there is all."""

    def __post_init__(self) -> None:
        self._last = ""
        self._told: set[str] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read beside others."""
        self._thread = threading.Thread(target=self.print, kwargs={"follow": True}, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until all is read; a connection that died unnoticed is not waited for."""
        if self._thread:
            self._thread.join(JOIN)
            if self._thread.is_alive():
                self.tell(f"{self.label}: the end of its log did not come; argotune logs {self.run} shows it")

    def print(self, *, follow: bool) -> None:
        """Hand all lines on, again and again from where it broke off, until the pod has ended."""
        while True:
            last_time = not follow or self.ended.is_set()
            at_least = None
            try:
                for line in self._new_lines(follow=not last_time):
                    self.emit(self.label, line)
                    self.backoff.reset()
                if last_time:
                    return
            except ApiFailure as failure:
                if self._is_over(failure, last_time):
                    return
                at_least = failure.retry_after
            self.backoff.pause(at_least)

    def _is_over(self, failure: ApiFailure, last_time: bool) -> bool:
        if failure.status == 404:
            if last_time:
                self.tell(f"{self.label}: {'the rest of ' if self._last else ''}its log is gone; {WHERE}")
            return last_time
        if failure.status == 400 and last_time:
            self.tell(f"{self.label}: no log: {failure.message.rpartition(': ')[2]}")
            return True
        if failure.status != 400 and not failure.transient:
            self.tell(f"{self.label}: {failure}")
            return True
        if self.backoff.failing_seconds() > watch.MAX_DISCONNECTED_SECONDS:
            self.tell(f"{self.label}: {failure.message}; its log is given up")
            return True
        return False

    def _new_lines(self, *, follow: bool) -> Iterator[str]:
        """Lines later than the last one known; of those of its very moment, the ones that were not told yet."""
        since, told = self._last, set(self._told)
        for line in self.api.log(self.run, self.pod, follow=follow, since=since):
            time, text = _split(line)
            if time and (time < since or (time == since and text in told)):
                continue
            if time != self._last:
                self._last, self._told = time or self._last, set()
            self._told.add(text)
            yield text


def _split(line: str) -> tuple[str, str]:
    """Time and text of a line that the server put the time before."""
    time, _, text = line.partition(" ")
    return (time, text) if time[:4].isdigit() and "T" in time else ("", line)
