"""Every call of ``argotune promote`` and ``argotune rollback`` fails once in every way; both are killed after each.

The recorded release is always one of the two; repeating the command succeeds and leaves no other objects.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import fault_table
import pytest
from faults import RETRY_AFTER, Faults, kill_proof, read_timeout
from kubernetes_server import KubernetesServer
from serving_cluster import NAMESPACE, serve_with_canary, served_images

from steps.kubernetes import client as kubernetes_client
from workflows.cli import main

NAME = "helper"
NUMBER = itertools.count()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each wait, none of which takes time."""
    waited: list[float] = []
    connect = kubernetes_client.connect
    monkeypatch.setattr(kubernetes_client, "connect", lambda wait=None: connect(waited.append))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return waited


def recorded(cluster: KubernetesServer) -> str:
    """Return the image of the recorded current release."""
    document = cluster.read("configmaps", f"{NAME}-releases", NAMESPACE)
    assert document
    current = json.loads(document["data"]["releases.json"])["current"]
    return str(current["pod"]["spec"]["containers"][0]["image"])


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Callable[..., tuple[Faults, str]]:
    """``attempt(kind, call, before=[...], command="promote", expected="two")``: a service with a canary, then that."""

    def run(
        kind: str, call: int, *, command: str, expected: str, before: str = "", instead: str = ""
    ) -> tuple[Faults, str]:
        monkeypatch.setattr(kubernetes_client, "TIMEOUT", (30, read_timeout(kind)))
        with KubernetesServer() as cluster:
            monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
            servers = serve_with_canary(cluster, NAME, tmp_path / str(next(NUMBER)))
            assert not before or main([before, NAME]) == 0
            cluster.faults.calls.clear()
            waits.clear()
            if kind:
                cluster.faults.fail(kind, call)
            outcome = "succeeds on retry"
            if kind == "killed":
                assert not kill_proof(cluster.faults, lambda: main([command, NAME])), "the process was not killed"
                assert recorded(cluster) in ("one", "two")
                outcome = "was already done" if is_done(cluster, expected) else "succeeds after a restart"
            if outcome != "was already done":
                assert main([instead or command, NAME]) == 0
            assert kind != "429" or RETRY_AFTER in waits
            assert is_done(cluster, "one" if instead else expected)
            assert servers.min_ready[NAME] == 1, "no server was ready for a while"
            return cluster.faults, outcome

    return run


def is_done(cluster: KubernetesServer, expected: str) -> bool:
    """Return True if the image is live and recorded, and no object of the canary remains."""
    document = cluster.read("configmaps", f"{NAME}-releases", NAMESPACE)
    assert document
    known = json.loads(document["data"]["releases.json"])
    retained = {f"{NAME}-adapters-{known[one]['revision']}" for one in ("current", "previous") if known[one]}
    maps = {one["metadata"]["name"] for one in cluster.all("configmaps")}
    return (
        known["canary"] is None
        and recorded(cluster) == expected
        and served_images(cluster) == {NAME: expected}
        and maps == {*retained, f"{NAME}-releases"}
        and len(cluster.all("pods")) == 1
    )


@pytest.mark.parametrize(
    ("section", "arguments"),
    [
        ("argotune promote", {"command": "promote", "expected": "two"}),
        ("argotune rollback of a canary", {"command": "rollback", "expected": "one"}),
        ("argotune rollback", {"before": "promote", "command": "rollback", "expected": "one"}),
    ],
)
def test_every_call_fails_once_in_every_way(
    section: str, arguments: dict[str, str], attempt: Callable[..., tuple[Faults, str]]
) -> None:
    rows = fault_table.sweep(
        section.removesuffix(" of a canary"),
        lambda kind, call: attempt(kind, call, **arguments),
        max_repeats=2,
        sample=2,
    )
    fault_table.check(section, rows, sample=True)


def test_a_killed_promotion_can_be_rolled_back(attempt: Callable[..., tuple[Faults, str]]) -> None:
    """After a killed promotion the user can also run rollback."""

    def run(kind: str, call: int) -> tuple[Faults, str]:
        instead = "rollback" if kind else ""
        return attempt(kind, call, command="promote", expected="two", instead=instead)

    outcomes = {row.outcome for row in fault_table.sweep("promote", run, ("killed",), max_repeats=1)}
    assert outcomes == {"succeeds after a restart"}
