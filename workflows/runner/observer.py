"""What who watches a run is told; every method may be left as it is."""

from __future__ import annotations

from workflows.runner.state import Node, State


class Observer:
    """Watches a run, from the runner's own thread."""

    def started(self, state: State, planned: list[str]) -> None:
        """The run begins, or goes on; ``planned`` are the tasks of the entrypoint in the order of the document."""

    def changed(self, node: Node) -> None:
        """A node has another phase or message."""

    def log(self, node: Node, line: str) -> None:
        """A leaf wrote a line."""

    def progress(self, node: Node, done: int, total: int) -> None:
        """A leaf wrote another ``N/M`` into its ``ARGO_PROGRESS_FILE``."""

    def said(self, text: str) -> None:
        """The runner itself has something to say."""

    def asks(self, text: str) -> None:
        """A person is asked, and types the answer after this text."""

    def answered(self) -> None:
        """No question is open any more."""

    def ended(self, state: State) -> None:
        """The run has ended."""
