"""Measure the seconds from the submission of a run to its first training step, by cause, on the cluster of KUBECONFIG.

    python benchmarks/idle/measure.py workspace.yaml                  # as compiled: nodes and data in parallel
    python benchmarks/idle/measure.py workspace.yaml --sequential     # nodes after the data, to compare

ARGOTUNE_SITE, ``--set`` and other flags of ``argotune submit`` work as usual. The run is stopped after its first step.
Times are those of the API server (in whole seconds) and of the container's log.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Document = dict[str, Any]
FIRST_STEP = re.compile(r"\bstep \d+/\d+ loss ")
POLL_SECONDS = 1.0
MAX_SECONDS = 3600.0


def main() -> None:
    """Submit a run, and print the causes as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequential", action="store_true", help="provision after download")
    parser.add_argument("--keep", action="store_true", help="do not stop the run")
    args, submit = parser.parse_known_args()
    document = json.loads(_run("argotune", "submit", *submit, "--dry-run=client", "--output", "json"))
    if args.sequential:
        make_sequential(document)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "workflow.json"
        file.write_text(json.dumps(document))
        name = _run("argotune", "submit", str(file), "--output", "name").split()[0].rpartition("/")[2]
    namespace = ["--namespace", document["metadata"].get("namespace") or "argotune"]
    try:
        print_causes(*_wait(name, namespace))
    finally:
        if not args.keep:
            _run("argotune", "stop", "--cluster", name, *namespace)


def make_sequential(document: Document) -> None:
    """Let ``provision`` wait for ``download``.

    Raises:
        SystemExit: The workflow has no such tasks in parallel.
    """
    tasks = [task for one in document["spec"]["templates"] for task in (one.get("dag") or {}).get("tasks") or []]
    named = {task["name"]: task for task in tasks}
    provision, download = named.get("provision"), named.get("download")
    if not provision or not download or provision.get("depends") != download.get("depends"):
        sys.exit("provision and download do not run in parallel: the run has a schedule, or does not tune")
    provision["depends"] = "download"


def causes(workflow: Document, pod: Document, first_step: datetime) -> dict[str, float]:
    """Return the seconds between submission and first step; they add up.

    Args:
        workflow: the Workflow, whose ``tune`` has a pod.
        pod: the first pod of ``tune``, with its status.
        first_step: time of the first step in the log.
    """
    ends = {name: _node_end(workflow, name) for name in ("preflight", "download", "fetch", "provision")}
    checked, ready = ends["preflight"], max(filter(None, ends.values()), default=None)
    scheduled = next(one for one in pod["status"]["conditions"] if one["type"] == "PodScheduled")
    containers = {item["name"]: item["state"] for item in pod["status"]["containerStatuses"]}
    main = containers["main"].get("running") or containers["main"]["terminated"]
    points = {
        "checks (preflight)": checked,
        "nodes, data and base model (provision, download, fetch)": ready,
        "scheduling of tune": _time(scheduled["lastTransitionTime"]),
        "volumes, image pull and init container": _time(main["startedAt"]),
        "libraries, base model, tokens, first step": first_step,
    }
    result, last = {}, _time(workflow["metadata"]["creationTimestamp"])
    for cause, end in points.items():
        end = max(end or last, last)
        result[cause], last = (end - last).total_seconds(), end
    return result


def print_causes(workflow: Document, pod: Document, first_step: datetime) -> None:
    """Print a Markdown table, with the times of the steps that overlap."""
    found = causes(workflow, pod, first_step)
    print("| cause | seconds |\n|---|---|")
    for cause, seconds in found.items():
        print(f"| {cause} | {seconds:.0f} |")
    print(f"| submission to first step | {sum(found.values()):.0f} |")
    for name in ("provision", "pull", "fetch", "download"):
        if node := _node(workflow, name):
            seconds = (_time(node["finishedAt"]) - _time(node["startedAt"])).total_seconds()
            print(f"\n{name} alone: {seconds:.0f} s")


def _wait(name: str, namespace: list[str]) -> tuple[Document, Document, datetime]:
    """Return the Workflow, the pod of tune and the time of its first step, as soon as the log has it."""
    deadline = time.monotonic() + MAX_SECONDS
    while time.monotonic() < deadline:
        workflow = json.loads(_run("kubectl", *namespace, "get", "workflow", name, "--output", "json"))
        status = workflow.get("status") or {}
        if status.get("finishedAt"):
            sys.exit(f"{name} ended before its first step: {status.get('phase')}: {status.get('message', '')}")
        selector = f"workflows.argoproj.io/workflow={name}"
        pods = json.loads(_run("kubectl", *namespace, "get", "pods", "--selector", selector, "--output", "json"))
        for pod in pods["items"]:
            log = _log(pod, namespace) if "-tune-" in pod["metadata"]["name"] else ""
            if moment := first_step_time(log):
                return workflow, pod, moment
        time.sleep(POLL_SECONDS)
    sys.exit(f"{name} has no first step after {MAX_SECONDS:.0f} s")


def first_step_time(log: str) -> datetime | None:
    """Return the time of the first step in a log of ``kubectl logs --timestamps``; None if there is none yet."""
    lines = (line.partition(" ") for line in log.splitlines())
    return next((_time(stamp) for stamp, _, text in lines if FIRST_STEP.search(text)), None)


def _log(pod: Document, namespace: list[str]) -> str:
    """Return the log of the main container; empty before it starts."""
    command = ["kubectl", *namespace, "logs", pod["metadata"]["name"], "--container", "main", "--timestamps"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _node(workflow: Document, template: str) -> Mapping[str, Any] | None:
    """Return the node of a step that has ended; that with all attempts, if it is retried."""
    nodes = (workflow.get("status") or {}).get("nodes", {}).values()
    own = [node for node in nodes if node.get("templateName") == template and node.get("finishedAt")]
    return max(own, key=lambda node: (node.get("type") == "Retry", str(node["finishedAt"])), default=None)


def _node_end(workflow: Document, template: str) -> datetime | None:
    node = _node(workflow, template)
    return _time(node["finishedAt"]) if node else None


def _time(text: str) -> datetime:
    # Logs have nanoseconds, which fromisoformat does not read.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00")).astimezone(UTC)


def _run(*command: str) -> str:
    """Return the output of a command; its errors appear on the terminal."""
    words = [sys.executable, "-m", "workflows.cli", *command[1:]] if command[0] == "argotune" else list(command)
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
