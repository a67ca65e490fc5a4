"""Run a container node: attempts, each a local process, until one succeeds or the retries are exhausted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from steps.runtime import progress, storage_errors, termination
from workflows.argo.duration import parse_duration
from workflows.argo.expressions import ExpressionError
from workflows.argo.phase import Phase
from workflows.argo.tags import Scope, Unresolved, substitute
from workflows.argo.workflow import Retry, Template, Workflow
from workflows.runner import retries
from workflows.runner.control import Stop, Timing
from workflows.runner.launch import Launch, prepare
from workflows.runner.outcome import step_from_node
from workflows.runner.process import LogReader, Process
from workflows.runner.state import Attempt, Node, Run
from workflows.runs.observer import Observer

_PROGRESS_SECONDS = 0.5


_OWN_ERRORS = storage_errors.NUMBERS | {errno.E2BIG}
"""Errors of this machine, which a retry does not fix."""


class PodRunner:
    """Runs the containers of a workflow."""

    def __init__(
        self,
        workflow: Workflow,
        run: Run,
        volumes: Mapping[str, Path],
        observer: Observer,
        timing: Timing,
        results: set[str],
    ) -> None:
        """``results`` are the templates whose standard output is used as ``outputs.result``."""
        self._spec = workflow.spec
        self._run = run
        self._volumes = volumes
        self._observer = observer
        self._timing = timing
        self._results = results
        self._slots = asyncio.Semaphore(workflow.spec.parallelism) if workflow.spec.parallelism else None

    async def run(self, template: Template, node: Node, scope: Scope, stop: Stop) -> None:
        """Run attempts until the node has ended; a stop before the first attempt leaves it Pending."""
        # Attempts before a resume do not count against the retries.
        first = len(node.attempts)
        retry = retries.RetryAfter(0.0)
        while True:
            async with self._slots or contextlib.nullcontext():
                if stop.requested:
                    break
                number = len(node.attempts) - first
                retry_tags = {"retries": str(number), **retries.last_retry(node.attempts[first:])}
                tags = {**scope, **(retry_tags if template.retry_strategy else {})}
                attempt = await self._attempt(template, node, tags, stop, retry.deadline)
            if attempt.phase is Phase.SUCCEEDED or stop.requested:
                break
            decision = self._decide(template, node.attempts[first:], tags)
            if isinstance(decision, retries.GiveUp):
                if decision.reason:
                    attempt.message = f"{attempt.message} ({decision.reason})"
                break
            retry = decision
            self._settle(node, attempt, Phase.PENDING, f"{attempt.message}; retrying in {retry.wait:.0f} s")
            await self._sleep(retry.wait, stop)
        if len(node.attempts) > first:
            self._settle(node, node.attempts[-1], node.attempts[-1].phase, node.attempts[-1].message)

    def _decide(self, template: Template, attempts: list[Attempt], tags: Scope) -> retries.RetryAfter | retries.GiveUp:
        if template.retry_strategy is None or attempts[-1].permanent:
            return retries.GiveUp()
        try:
            strategy = template.retry_strategy.model_dump(by_alias=True)
            return retries.decide(
                Retry.model_validate(substitute(strategy, {**tags, **retries.last_retry(attempts)})), attempts
            )
        except (Unresolved, ExpressionError, ValueError) as error:
            return retries.GiveUp(f"no retry: {error}")

    async def _sleep(self, wait: float, stop: Stop) -> None:
        sleeping = asyncio.ensure_future(self._timing.sleep(wait))
        stopped = asyncio.ensure_future(stop.event.wait())
        await asyncio.wait({sleeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (sleeping, stopped):
            waiting.cancel()

    async def _attempt(
        self, template: Template, node: Node, tags: Scope, stop: Stop, deadline: float | None
    ) -> Attempt:
        now = self._timing.now()
        attempt = Attempt(number=len(node.attempts) + 1, started_at=now)
        node.attempts.append(attempt)
        node.phase, node.message, node.fix = Phase.RUNNING, "", ""
        node.started_at = node.started_at or now
        self._changed(node)
        inputs: list[Path] = []
        try:
            limit = _limit(template, tags, now, deadline)
            launch = prepare(
                self._spec,
                template,
                self._run,
                node.key,
                attempt.number,
                tags,
                volumes=self._volumes,
                with_result=template.name in self._results,
            )
            inputs = launch.inputs
            process = Process(
                launch.argv,
                folder=launch.folder,
                environment=launch.environment,
                log=launch.log,
                stdout=launch.stdout,
            )
        except (Unresolved, OSError, ValueError) as error:
            attempt.permanent = isinstance(error, OSError) and error.errno in _OWN_ERRORS
            _delete(inputs)
            return self._end(attempt, Phase.ERROR, _cannot_start(error))
        attempt.process, attempt.process_identity = process.id, process.identity
        self._run.save()
        try:
            code, lines, ended_by = await self._watch(process, node, launch, stop, limit)
        finally:
            _delete(inputs)
        return self._conclude(template, node, attempt, launch, code, lines, ended_by)

    async def _watch(
        self, process: Process, node: Node, launch: Launch, stop: Stop, limit: tuple[float, str] | None
    ) -> tuple[int, list[str], str]:
        """Wait for a process to end, pass on its output, and end it on a stop or at its time limit.

        Returns:
            Its exit code, its last lines, and the reason why it was ended, empty if it ended on its own.
        """
        step = step_from_node(node)
        readers = [LogReader(path, lambda line: self._observer.on_log(step, line)) for path in launch.logs]
        ended_by, kill_at, progress_at = "", float("inf"), 0.0
        reported = ""
        try:
            while (code := process.poll()) is None:
                for reader in readers:
                    reader.read()
                now = self._timing.now()
                if now >= progress_at:
                    reported = self._report_progress(node, launch.progress, reported)
                    progress_at = now + _PROGRESS_SECONDS
                if not ended_by and (stop.requested or (limit and now >= limit[0])):
                    ended_by = stop.reason if stop.requested or limit is None else limit[1]
                    kill_at = now + self._grace(launch)
                    process.terminate()
                if stop.kill or now >= kill_at:
                    process.kill()
                await asyncio.sleep(self._timing.poll)
        finally:
            process.kill()
        for reader in readers:
            reader.read(final=True)
        self._report_progress(node, launch.progress, reported)
        return code, [line for reader in readers for line in reader.last], ended_by

    def _grace(self, launch: Launch) -> float:
        return launch.grace if self._timing.grace is None else self._timing.grace

    def _report_progress(self, node: Node, file: Path, last: str) -> str:
        with contextlib.suppress(OSError):
            text = file.read_text(errors="replace")
            if text != last and (done := progress.parse(text)):
                self._observer.on_progress(step_from_node(node), *done)
                return text
        return last

    def _conclude(
        self,
        template: Template,
        node: Node,
        attempt: Attempt,
        launch: Launch,
        code: int,
        lines: list[str],
        ended_by: str,
    ) -> Attempt:
        attempt.exit_code = code
        node.outputs, missing = _read_outputs(template, launch.outputs)
        if launch.stdout:
            node.result = launch.stdout.read_text(errors="replace").removesuffix("\n")
        if ended_by:
            # Exit code 0 after SIGTERM is a failure too: the work is incomplete.
            return self._end(attempt, Phase.FAILED, ended_by)
        if code:
            message, attempt.fix = _failure(launch, code, lines)
            return self._end(attempt, Phase.FAILED, message)
        missing += _save_artifacts(template, launch)
        if missing:
            return self._end(attempt, Phase.ERROR, f"the outputs are missing: {', '.join(missing)}")
        return self._end(attempt, Phase.SUCCEEDED, "")

    def _end(self, attempt: Attempt, phase: Phase, message: str) -> Attempt:
        attempt.phase, attempt.message, attempt.finished_at = phase, message, self._timing.now()
        return attempt

    def _settle(self, node: Node, attempt: Attempt, phase: Phase, message: str) -> None:
        node.phase, node.message, node.fix, node.exit_code = phase, message, attempt.fix, attempt.exit_code
        node.finished_at = attempt.finished_at if phase.is_fulfilled else None
        node.cause = node.key if phase.is_failure else ""
        self._changed(node)

    def _changed(self, node: Node) -> None:
        self._run.save()
        self._observer.on_step_change(step_from_node(node))


def _limit(template: Template, tags: Scope, now: float, deadline: float | None) -> tuple[float, str] | None:
    """Return the deadline of an attempt and the message when it is exceeded; None when there is none."""
    limits = [(deadline, "took longer than the maxDuration of its backoff")] if deadline is not None else []
    fields = (("timeout", template.timeout), ("activeDeadlineSeconds", template.active_deadline_seconds))
    for name, text in fields:
        if text is not None:
            value = substitute(text, tags)
            limits.append((now + parse_duration(value), f"took longer than its {name} ({value})"))
    return min(limits, default=None)


def _failure(launch: Launch, code: int, lines: Iterable[str]) -> tuple[str, str]:
    """Return why a command failed, and the fix: its termination message, or its exit code and last output."""
    message, fix = termination.parse(launch.termination.read_text(errors="replace"))
    if message:
        return message, fix
    message, fix = last_error(lines)
    killed = " (killed)" if code == 137 else ""
    return f"exit code {code}{killed}{': ' if message else ''}{message}", fix


def last_error(lines: Iterable[str]) -> tuple[str, str]:
    """Return the error message and the fix in the output of a failed command.

    Steps print ``error: MESSAGE`` and on the next line ``fix: FIX``; for other programs it is the last line.
    """
    output = [line.strip() for line in lines if line.strip()]
    for index in reversed(range(len(output))):
        if output[index].startswith("error: "):
            following = output[index + 1] if index + 1 < len(output) else ""
            fix = following.removeprefix("fix: ") if following.startswith("fix: ") else ""
            return output[index].removeprefix("error: "), fix
    return (output[-1] if output else ""), ""


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _cannot_start(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"command not found: `{error.filename}`"
    if isinstance(error, OSError):
        return f"could not start: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return str(error)


def _read_outputs(template: Template, paths: Mapping[str, Path]) -> tuple[dict[str, str], list[str]]:
    """Return the output parameters that were written or have a default, and the names of the missing ones."""
    outputs, missing = {}, []
    for output in template.outputs.parameters:
        try:
            outputs[output.name] = paths[output.name].read_text().removesuffix("\n")
        except (OSError, UnicodeDecodeError):
            if output.default is None:
                missing.append(output.name)
            else:
                outputs[output.name] = output.default
    return outputs, missing


def _save_artifacts(template: Template, launch: Launch) -> list[str]:
    """Copy the output artifacts to the node's directory; return the names of the missing ones."""
    missing = []
    for artifact in template.outputs.artifacts:
        source = launch.artifacts[artifact.name]
        target = launch.log.parent / "artifacts" / artifact.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, target)
        elif not artifact.optional:
            missing.append(artifact.name)
    return missing
