"""Every call of provision and release on AKS fails once in every way, and the process is killed after each of them.

In the end there is one pool, made once, and after release none. docs/FAULTS.md has the results.
"""

from __future__ import annotations

from collections.abc import Callable

import fault_table
import pytest
from arm_fixture import CLUSTER_REF, RUN, Pod, serve_pod
from arm_server import A10, A100
from faults import RETRY_AFTER, Faults, kill_proof, read_timeout

from steps.provision import aks, aks_pool
from steps.provision.settings import ClusterRef

NAME = aks_pool.name(RUN)
FULL = ("AllocationFailed", "Allocation failed. We do not have sufficient capacity for the requested VM size.")


@pytest.fixture
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Faults, str]]:
    """``attempt(before, step, after)(kind, call)``: a new cloud, where the ``call``-th call of ``step`` fails so."""

    def make(
        before: Callable[[Pod], object], step: Callable[[Pod], object], after: Callable[[Pod], None]
    ) -> Callable[[str, int], tuple[Faults, str]]:
        def run(kind: str, call: int) -> tuple[Faults, str]:
            with pytest.MonkeyPatch.context() as patch, serve_pod(tmp_path_factory.mktemp("azure"), patch) as pod:
                before(pod)
                pod.server.faults.calls.clear()
                if kind:
                    pod.server.faults.fail(kind, call)
                pod.read_timeout = read_timeout(kind)
                if kind == "killed":
                    outcome = again(pod, step)
                else:
                    step(pod)
                    assert kind != "429" or RETRY_AFTER in pod.waits, "Retry-After of a 429 is honored"
                    outcome = "succeeds on retry"
                calls = list(pod.server.faults.calls)
                after(pod)
                pod.server.faults.calls[:] = calls
                return pod.server.faults, outcome

        return run

    return make


def again(pod: Pod, step: Callable[[Pod], object]) -> str:
    """The step in a process that is killed, and then in another."""
    assert not kill_proof(pod.server.faults, lambda: step(pod)), "it was to be killed"
    step(pod)
    return "succeeds after a restart"


def provision(pod: Pod) -> None:
    assert pod.provision().nodes == [NAME]


def first_size_full(pod: Pod) -> None:
    pod.server.azure.failing[A100] = FULL


def provision_elsewhere(pod: Pod) -> None:
    assert A10 in pod.provision(fallback_instance_types=[A10]).summary


def collect(pod: Pod) -> None:
    place = ClusterRef(**CLUSTER_REF)
    for found in aks.list_orphans(place, pod.connect()):
        aks.remove(place, found, pod.connect())


def made_once(pod: Pod) -> None:
    azure = pod.server.azure
    assert azure.made == [A100] and list(azure.pools) == [NAME]
    gone(pod)


def made_elsewhere(pod: Pod) -> None:
    azure = pod.server.azure
    # A size that had no room may be asked for once more by the next try; there are never two pools.
    assert azure.made[-1] == A10 and azure.made.count(A10) == 1 and azure.most == 1 and list(azure.pools) == [NAME]
    gone(pod)


def gone(pod: Pod) -> None:
    pod.release()
    assert not pod.server.azure.pools
    assert len(pod.server.azure.deleted) == len(pod.server.azure.made)


def test_provision(attempt: Callable[..., Callable[[str, int], tuple[Faults, str]]]) -> None:
    rows = fault_table.sweep("provision", attempt(lambda pod: None, provision, made_once), sample=3)
    fault_table.check("provision: AKS node pools", rows, sample=True)


def test_release(attempt: Callable[..., Callable[[str, int], tuple[Faults, str]]]) -> None:
    rows = fault_table.sweep("release", attempt(provision, lambda pod: pod.release(), gone), sample=3)
    fault_table.check("release: AKS node pools", rows, sample=True)


def test_provision_of_another_size(attempt: Callable[..., Callable[[str, int], tuple[Faults, str]]]) -> None:
    rows = fault_table.sweep(
        "provision, first size full",
        attempt(first_size_full, provision_elsewhere, made_elsewhere),
        ("killed", "reset"),
        sample=1,
    )
    fault_table.check("provision: AKS node pools, first instance type unavailable", rows, sample=True)


def test_collection(attempt: Callable[..., Callable[[str, int], tuple[Faults, str]]]) -> None:
    rows = fault_table.sweep("gc", attempt(provision, collect, gone), ("reset", "killed"))
    fault_table.check("gc: AKS node pools", rows)
