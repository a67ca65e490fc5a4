"""The commands of users in a namespace of a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cluster:
    """A namespace with argotune's installation, and the commands of its users."""

    namespace: str
    site: Path
    kubeconfig: str

    def as_account(self, account: str) -> Cluster:
        """Return the cluster with the rights of a service account, by a token of it."""
        token = self.kubectl("create", "token", account).strip()
        config = yaml.safe_load(Path(self.kubeconfig).read_text())
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        file = self.site.with_name(f"{account}.kubeconfig")
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(config))
        return Cluster(self.namespace, self.site, str(file))

    def with_site(self, name: str, change: Callable[[dict[str, Any]], Any]) -> Cluster:
        """Return the cluster with a changed site profile."""
        profile = yaml.safe_load(self.site.read_text())
        change(profile)
        site = self.site.with_name(f"{name}.yaml")
        site.write_text(yaml.safe_dump(profile))
        return Cluster(self.namespace, site, self.kubeconfig)

    def kubectl(self, *arguments: str, stdin: str = "", ok: bool = True, timeout: float = 120) -> str:
        """Run kubectl in the namespace; return its output, or what it says when it fails and ``ok`` is False."""
        return run(["kubectl", *self._flags, *arguments], stdin, ok, timeout)

    def wait(self, target: str, condition: str, *flags: str, seconds: int = 300) -> None:
        """Wait until objects meet a condition of ``kubectl wait --for``; the limit ends only a test that hangs."""
        command = ["wait", target, *flags, f"--for={condition}", f"--timeout={seconds}s"]
        self.kubectl(*command, timeout=seconds + 60)

    def may(self, subject: str, verb: str, resource: str) -> bool:
        """Return True if the API server would let a user or account make a call in the namespace."""
        command = ["kubectl", *self._flags, "auth", "can-i", verb, resource, "--as", subject, "--quiet"]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0

    def argo(self, *arguments: str, ok: bool = True, timeout: float = 120) -> str:
        """Run Argo's own command line in the namespace."""
        return run(["argo", *self._flags, *arguments], "", ok, timeout)

    def argotune(self, *arguments: str, exit_code: int = 0, timeout: float = 120) -> str:
        """Run argotune with the site profile; return both of its outputs."""
        variables = {"ARGOTUNE_SITE": str(self.site), "KUBECONFIG": self.kubeconfig, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "workflows.cli", *arguments],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == exit_code, done.stdout
        return done.stdout

    def wait_for_node(self, run: str, template: str, phase: str) -> dict[str, Any]:
        """Return a node of a template once it has a phase; fail when the run ends before."""
        return self.wait_for(run, lambda node: node.get("templateName") == template and node["phase"] == phase)

    def wait_for(self, run: str, is_met: Callable[[dict[str, Any]], bool], timeout: int = 600) -> dict[str, Any]:
        """Return the first node of a run that meets a condition; fail when the run ends before."""
        watch = ["kubectl", *self._flags, "get", f"workflow/{run}", "--watch", "--output", "json"]
        with subprocess.Popen([*watch, f"--request-timeout={timeout}s"], stdout=subprocess.PIPE, text=True) as process:
            try:
                for workflow in _documents(process.stdout):
                    status = workflow.get("status", {})
                    for node in status.get("nodes", {}).values():
                        if is_met(node):
                            return dict(node)
                    assert not status.get("finishedAt"), self.argotune("status", run)
            finally:
                process.kill()
        raise AssertionError(f"no node of {run} met the condition within {timeout} s")

    def wait_for_line(self, pod: str, text: str, timeout: int = 600) -> None:
        """Wait until the log of a pod's container ``main`` contains a text."""
        # kubectl refuses to follow a container that is not started, which the pod's phase does not tell.
        started = '{.status.containerStatuses[?(@.name=="main")].started}=true'
        self.wait(f"pod/{pod}", f"jsonpath={started}")
        follow = ["kubectl", *self._flags, "logs", pod, "--container", "main", "--follow"]
        with subprocess.Popen(
            [*follow, f"--request-timeout={timeout}s"], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout and any(text in line for line in process.stdout), f"{pod} did not log {text!r}"
            finally:
                process.kill()

    def pod_of(self, run: str, template: str) -> str:
        """Return the name of the newest pod of a step."""
        selector = f"workflows.argoproj.io/workflow={run}"
        pods = self.get("pods", "", "--selector", selector, "--sort-by=.metadata.creationTimestamp")["items"]
        return str([pod["metadata"]["name"] for pod in pods if f"-{template}-" in pod["metadata"]["name"]][-1])

    def bind(self, role: str, account: str) -> None:
        """Bind a Role of the installation to a service account."""
        subject = f"--serviceaccount={self.namespace}:{account}"
        binding = self.kubectl("create", "rolebinding", f"{role}-{account}", f"--role={role}", subject,
                               "--dry-run=client", "--output", "yaml")  # fmt: skip
        self.kubectl("apply", "--filename", "-", stdin=binding)

    @property
    def _flags(self) -> list[str]:
        return ["--kubeconfig", self.kubeconfig, "--namespace", self.namespace]

    def get(self, kind: str, name: str = "", *arguments: str) -> dict[str, Any]:
        """Return an object, or the list of a kind."""
        output = self.kubectl("get", kind, *([name] if name else []), *arguments, "--output", "json")
        document: dict[str, Any] = json.loads(output)
        return document

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply objects."""
        self.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(documents))

    def create(self, document: dict[str, Any]) -> str:
        """Create an object with a generated name; return the name."""
        output = self.kubectl("create", "--filename", "-", "--output", "name", stdin=json.dumps(document))
        return output.strip().rpartition("/")[2]

    @contextmanager
    def custom_resource(self, definition: dict[str, Any]) -> Iterator[bool]:
        """Add a CustomResourceDefinition while the context is open; yields False if the cluster has it already."""
        name = definition["metadata"]["name"]
        if self.get("crd", "", "--field-selector", f"metadata.name={name}")["items"]:
            yield False
            return
        # Client-side apply would store the schema in an annotation, which is limited to 256 KiB.
        self.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(definition))
        # kubectl fails if it waits for a condition while there are none; the API server adds the first with the names.
        accepted = f"jsonpath={{.status.acceptedNames.kind}}={definition['spec']['names']['kind']}"
        for met in (accepted, "condition=Established"):
            self.wait(f"crd/{name}", met)
        yield True
        self.kubectl("delete", "crd", name, "--timeout=300s", timeout=360)

    def submit(self, workspace: Path, *arguments: str) -> str:
        """Submit a Workspace and return the name of its run."""
        output = self.argotune("submit", str(workspace), "--output", "name", *arguments)
        return output.splitlines()[0].rpartition("/")[2]

    def finish(self, run: str, timeout: int = 900) -> dict[str, Any]:
        """Return a Workflow once it has finished."""
        self.wait(f"workflow/{run}", "condition=Completed", seconds=timeout)
        return self.get("workflow", run)


def pods_of(workflow: dict[str, Any], template: str) -> list[dict[str, Any]]:
    """Return the nodes of a Workflow that are pods of a step."""
    nodes = workflow["status"]["nodes"].values()
    return [node for node in nodes if node["type"] == "Pod" and node["templateName"] == template]


def run(command: Sequence[str], stdin: str, ok: bool, timeout: float) -> str:
    """Run a command; return its output, with its errors where it may fail."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    if ok:
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout
    assert done.returncode != 0, f"{' '.join(command)} succeeded: {done.stdout}"
    return done.stdout + done.stderr


def _documents(stream: Any) -> Iterator[dict[str, Any]]:
    """Yield the JSON documents of a stream, each as soon as its last line is there."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if line.rstrip() == "}":
            yield json.loads("".join(lines))
            lines = []
