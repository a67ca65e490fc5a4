"""Run a workflow: its entrypoint, then its exit handler, whatever the result.

The state is written on every change, and a node that succeeded with the same inputs does not run again. So an
interrupted run resumes when it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from workflows.argo.phase import Phase
from workflows.argo.tags import Unresolved, tags
from workflows.argo.workflow import Arguments, Workflow
from workflows.runner import scope as scopes
from workflows.runner.control import Stop, Timing
from workflows.runner.nodes import EXIT, Nodes, Scope
from workflows.runner.outcome import status_from_state
from workflows.runner.pod_runner import PodRunner
from workflows.runner.state import Node, Run
from workflows.runs.observer import Observer


class Engine:
    """A run of a workflow."""

    def __init__(
        self, workflow: Workflow, run: Run, volumes: Mapping[str, Path], observer: Observer, timing: Timing
    ) -> None:
        self._workflow = workflow
        self._spec = workflow.spec
        self._run = run
        self._state = run.state
        self._observer = observer
        self._timing = timing
        pods = PodRunner(workflow, run, volumes, observer, timing, _templates_with_result(workflow))
        self._nodes = Nodes(workflow.spec, run, pods, observer, timing)
        self._stop = Stop()
        self._cancelled = False
        self._killed = False

    async def run(self) -> None:
        """Run the workflow to its end; the result is in the state."""
        state = self._state
        main_done = state.main is Phase.SUCCEEDED
        state.phase = Phase.RUNNING
        state.started_at = state.started_at or self._timing.now()
        state.message, state.cause, state.finished_at, state.time_limit_reached = "", "", None, False
        self._run.save()
        planned = [task.name for task in self._spec.template(self._spec.entrypoint).tasks]
        self._observer.on_start(status_from_state(state), planned)
        try:
            with self._signals():
                if not main_done:
                    await self._run_main()
                # The phase stays Running, so that a run killed in its exit handler is unfinished.
                failed = self._spec.on_exit and not self._killed and not await self._run_exit_handler()
                state.phase = Phase.FAILED if failed else state.main
            if self._cancelled:
                state.phase = Phase.CANCELLED
            state.finished_at = self._timing.now()
            self._run.save()
            if state.phase is Phase.SUCCEEDED:
                self._run.delete_queries()
        finally:
            self._observer.on_end(status_from_state(state))

    async def _run_main(self) -> None:
        state, limit = self._state, self._spec.active_deadline_seconds
        state.main = Phase.RUNNING
        timer = asyncio.ensure_future(self._stop_after(limit, self._stop)) if limit else None
        node = await self._call(self._spec.entrypoint, "", self._scope())
        if timer:
            timer.cancel()
        state.main = node.phase if node.phase.is_completed else Phase.FAILED
        state.cause, state.message = node.cause, node.message
        if self._stop.requested and state.main is not Phase.SUCCEEDED:
            state.message = self._stop.reason
            state.main = Phase.FAILED
        else:
            state.time_limit_reached = False
        self._run.save()

    async def _run_exit_handler(self) -> bool:
        """Run the exit handler; return False if it fails a workflow that succeeded."""
        state = self._state
        self._stop = Stop()
        node = await self._call(self._spec.on_exit, EXIT, self._scope(ended=True))
        if state.main is Phase.SUCCEEDED and node.phase is not Phase.SUCCEEDED:
            state.cause, state.message = node.cause, f"the exit handler failed: {node.message}"
            return False
        return True

    async def _call(self, name: str, key: str, scope: Scope) -> Node:
        """Run the entrypoint or the exit handler, whose arguments are the workflow's parameters."""
        template = self._spec.template(name)
        # A DAG at the root has no node: its tasks are at the top level of the run.
        key = key or (template.name if template.container else "")
        parameters = scopes.parameter_values(self._spec, self._state.parameters).items()
        arguments = Arguments.model_validate({"parameters": [{"name": n, "value": value} for n, value in parameters]})
        try:
            inputs = scopes.bind_inputs(template, arguments, scope, scope)
        except Unresolved as error:
            return self._nodes.settle(key or template.name, template.name, template, Phase.ERROR, str(error))
        return await self._nodes.call(template, key, template.name, inputs, scope, self._stop)

    async def _stop_after(self, limit: int, stop: Stop) -> None:
        await self._timing.sleep(limit)
        self._state.time_limit_reached = True
        stop.request(f"the workflow took longer than its activeDeadlineSeconds ({limit} s)")

    def _scope(self, *, ended: bool = False) -> Scope:
        return scopes.workflow_scope(self._workflow, self._state, self._timing.now(), ended=ended)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop on Ctrl-C as ``argo stop`` does; kill all processes on the second."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        handled = [number for number, handler in handlers.items() if handler is not signal.SIG_IGN]
        for number in handled:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
                signal.signal(number, handlers[number])

    def _on_signal(self, number: signal.Signals) -> None:
        self._killed = self._cancelled
        self._cancelled = True
        reason = f"stopped by {signal.Signals(number).name}"
        action = "killing all processes" if self._killed else "terminating all processes; repeat to kill them"
        self._observer.on_message(f"{reason}: {action}")
        self._stop.request(reason, kill=self._killed)


def _templates_with_result(workflow: Workflow) -> set[str]:
    """Return the templates whose standard output is used as ``{{tasks.X.outputs.result}}``."""
    return {
        task.template
        for template in workflow.spec.templates
        for task in template.tasks
        if f"{template.prefix}.{task.name}.outputs.result" in set(tags(template.model_dump()))
    }
