"""Every call of ``argotune promote`` and ``argotune rollback`` fails once in every way; both are killed after each.

Whatever happens, the release on record is one of the two; the same command given again ends well, and leaves nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import fault_table
import pytest
from faults import RETRY_AFTER, Faults, kill_proof
from kubernetes_server import KubernetesServer
from serving_cluster import NAMESPACE, serve_with_canary, served_images

from steps.kubernetes import client as kubernetes_client
from workflows.cli import main

NAME = "helper"
NUMBER = itertools.count()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, in no time."""
    waited: list[float] = []
    connect = kubernetes_client.connect
    monkeypatch.setattr(kubernetes_client, "connect", lambda wait=None: connect(waited.append))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return waited


def recorded(cluster: KubernetesServer) -> str:
    """Image of the release that is in service, as the record has it."""
    document = cluster.read("configmaps", f"{NAME}-releases", NAMESPACE)
    assert document
    current = json.loads(document["data"]["releases.json"])["current"]
    return str(current["pod"]["spec"]["containers"][0]["image"])


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Callable[..., tuple[Faults, str]]:
    """``attempt(kind, call, before=[...], command="promote", wanted="two")``: a service with a canary, then that."""

    def run(
        kind: str, call: int, *, command: str, wanted: str, before: str = "", instead: str = ""
    ) -> tuple[Faults, str]:
        monkeypatch.setattr(kubernetes_client, "TIMEOUT", (30, 0.2 if kind == "timeout" else 30))
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
                assert not kill_proof(cluster.faults, lambda: main([command, NAME])), "it was to be killed"
                assert recorded(cluster) in ("one", "two")
                outcome = "was already done" if is_over(cluster, wanted) else "succeeds after a restart"
            if outcome != "was already done":
                assert main([instead or command, NAME]) == 0
            assert kind != "429" or RETRY_AFTER in waits
            assert is_over(cluster, "one" if instead else wanted)
            assert servers.least[NAME] == 1, "nothing was in service for a while"
            return cluster.faults, outcome

    return run


def is_over(cluster: KubernetesServer, wanted: str) -> bool:
    """Whether the image is in service, alone and on record, and nothing is left of the canary."""
    document = cluster.read("configmaps", f"{NAME}-releases", NAMESPACE)
    assert document
    known = json.loads(document["data"]["releases.json"])
    kept = {f"{NAME}-adapters-{known[one]['revision']}" for one in ("current", "previous") if known[one]}
    maps = {one["metadata"]["name"] for one in cluster.all("configmaps")}
    return (
        known["canary"] is None
        and recorded(cluster) == wanted
        and served_images(cluster) == {NAME: wanted}
        and maps == {*kept, f"{NAME}-releases"}
        and len(cluster.all("pods")) == 1
    )


@pytest.mark.parametrize(
    ("section", "given"),
    [
        ("argotune promote", {"command": "promote", "wanted": "two"}),
        ("argotune rollback of a canary", {"command": "rollback", "wanted": "one"}),
        ("argotune rollback", {"before": "promote", "command": "rollback", "wanted": "one"}),
    ],
)
def test_every_call_fails_once_in_every_way(
    section: str, given: dict[str, str], attempt: Callable[..., tuple[Faults, str]]
) -> None:
    rows = fault_table.sweep(
        section.removesuffix(" of a canary"), lambda kind, call: attempt(kind, call, **given), max_repeats=2, sample=2
    )
    fault_table.check(section, rows, sample=True)


def test_a_promotion_that_was_killed_is_rolled_back(attempt: Callable[..., tuple[Faults, str]]) -> None:
    """Not only given again: whoever has seen it die may want the old release."""

    def run(kind: str, call: int) -> tuple[Faults, str]:
        instead = "rollback" if kind else ""
        return attempt(kind, call, command="promote", wanted="two", instead=instead)

    outcomes = {row.outcome for row in fault_table.sweep("promote", run, ("killed",), max_repeats=1)}
    assert outcomes == {"succeeds after a restart"}
