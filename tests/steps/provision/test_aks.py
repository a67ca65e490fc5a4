"""The AKS node pool of a run: the requests and their order; it is created once and released."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from arm_fixture import NAMESPACE, NOW, PLACE, RUN, Pod, serve_pod
from arm_server import A10, A100, FQDN, RETRY_AFTER

from steps.provision import aks, aks_pool
from steps.provision import step as provision
from steps.provision.settings import ClusterRef, ReleaseSettings
from steps.release import step as release
from steps.runtime.deadline import DeadlineExceeded
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

NAME = aks_pool.name(RUN)
FULL = ("AllocationFailed", "Allocation failed. We do not have sufficient capacity for the requested VM size.")
OTHER_RUN = "99999999-2222-3333-4444-555555555555"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    with serve_pod(tmp_path, monkeypatch) as pod:
        yield pod


def test_a_pool_is_made_as_the_workspace_says(pod: Pod) -> None:
    result = pod.provision(count=2, labels={"apps": "tuned", "kubernetes.io/os": "linux"}, zones=["2"])
    assert (result.device, result.nodes) == ("cuda", [NAME])
    assert result.summary == f"node pool {NAME}: 2 x {A100} (on demand) in zone 2, for this run alone"
    made = pod.server.azure.pools[NAME].properties
    assert made["nodeTaints"] == ["sku=gpu:NoSchedule"]
    assert made["nodeLabels"] == {"apps": "tuned", "argotune.dev/run": RUN}, "labels of the system are not for pools"
    assert (made["count"], made["minCount"], made["maxCount"], made["enableAutoScaling"]) == (2, 0, 2, True)
    assert (made["vmSize"], made["availabilityZones"], made["mode"]) == (A100, ["2"], "User")
    assert made["vnetSubnetID"].endswith("/subnet"), "in the network of the cluster's own pool"
    assert "scaleSetPriority" not in made
    assert made["tags"] == {
        "argotune-run": RUN,
        "argotune-workflow": "tuned-x7k2m",
        "argotune-workspace": "tuned",
        "argotune-namespace": NAMESPACE,
        "argotune-made": "2026-11-24T12:00:00+00:00",
        "argotune-lease-until": "2026-11-25T14:00:00+00:00",
    }
    assert RETRY_AFTER in pod.waits, "Azure says when to look again"


def test_the_name_is_one_that_aks_takes() -> None:
    assert len(NAME) == 12
    assert NAME.isalnum() and NAME.islower() and NAME[0].isalpha()
    assert aks_pool.name(OTHER_RUN) != NAME


def test_a_pool_that_is_there_is_used_again(pod: Pod) -> None:
    first = pod.provision()
    assert pod.provision() == first
    assert pod.server.azure.made == [A100]


def test_two_provisions_of_one_run_make_one_pool(pod: Pod) -> None:
    """The other one was faster between our look and our request."""
    cluster, other = pod.connect(), pod.connect()
    create = cluster.create

    def late(name: str, body: object) -> None:
        other.create(name, body)  # type: ignore[arg-type]
        create(name, body)  # type: ignore[arg-type]

    object.__setattr__(cluster, "create", late)
    assert aks.provision(pod.wanted(), cluster).nodes == [NAME]
    assert pod.server.azure.made == [A100]


def test_spot_comes_first_and_on_demand_when_there_is_none(pod: Pod) -> None:
    pod.server.azure.failing[f"{A100} spot"] = FULL
    pod.server.azure.failing[f"{A10} spot"] = FULL
    result = pod.provision(spot=True, fallback_instance_types=[A10])
    assert pod.server.azure.made == [f"{A100} spot", f"{A10} spot", A100]
    assert pod.server.azure.most == 1, "the pool that failed is gone before another is made"
    assert "on demand" in result.summary


def test_spot_pools_are_asked_for_as_azure_wants_it(pod: Pod) -> None:
    assert "(spot)" in pod.provision(spot=True).summary
    made = pod.server.azure.pools[NAME].properties
    assert (made["scaleSetPriority"], made["scaleSetEvictionPolicy"], made["spotMaxPrice"]) == ("Spot", "Delete", -1)


def test_sizes_and_zones_in_the_given_order(pod: Pod) -> None:
    zonal = ("ZonalAllocationFailed", "We do not have sufficient capacity for the requested VM size in this zone.")
    pod.server.azure.failing |= {A100: zonal, f"{A10} zone 2": zonal}
    pod.provision(zones=["2", "1"], fallback_instance_types=[A10])
    assert pod.server.azure.made == [f"{A100} zone 2", f"{A100} zone 1", f"{A10} zone 2", f"{A10} zone 1"]


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        ("QuotaExceeded", "Family Cores quota exceeded", "the quota is used up"),
        ("ErrCode_InsufficientVCPUQuota", "Insufficient vcpu quota requested 24, remaining 0", "too few vCPUs"),
        ("OperationNotAllowed", "results in exceeding approved Total Regional Cores quota", "the quota is used up"),
        ("SkuNotAvailable", "The requested VM size is currently not available", "not offered here"),
        ("BadRequest", "The VM size of Standard_X is not allowed in your subscription", "not offered here"),
        ("OverconstrainedAllocationRequest", "Allocation failed", "no machine free that meets all demands"),
        ("CreateVMSSAgentPoolFailed", 'Code="AllocationFailed" Message="..."', "no machine of this size free"),
    ],
)
@pytest.mark.parametrize("how", ["refused", "failed"])
def test_no_capacity_is_told_in_words(pod: Pod, code: str, message: str, words: str, how: str) -> None:
    if how == "refused":
        pod.server.azure.refusing[A100] = (409 if code == "OperationNotAllowed" else 400, code, message)
    else:
        pod.server.azure.failing[A100] = (code, message)
    with pytest.raises(InsufficientCapacity) as caught:
        pod.provision()
    assert caught.value.exit_code == 4
    assert f"no GPU nodes can be had for 1 x {A100}:\n  {A100} (on demand): " in caught.value.message
    assert words in caught.value.message
    assert "fallbackInstanceTypes" in caught.value.fix
    assert not pod.server.azure.pools, "a pool that failed is not left behind"


def test_another_failure_is_no_lack_of_capacity_and_the_next_try_makes_it_anew(pod: Pod) -> None:
    pod.server.azure.failing[A100] = ("VMExtensionProvisioningError", "The driver could not be installed.")
    with pytest.raises(StepError, match="VMExtensionProvisioningError") as caught:
        pod.provision(fallback_instance_types=[A10])
    assert caught.value.exit_code == 1
    assert pod.server.azure.made == [A100], "another size would not help"
    pod.server.azure.failing.clear()
    pod.provision()
    assert pod.server.azure.made == [A100, A100]
    assert pod.server.azure.most == 1


def test_a_try_after_one_that_was_killed_does_not_ask_again_for_what_failed(pod: Pod) -> None:
    pod.server.azure.failing[A100] = FULL
    cluster = pod.connect()
    cluster.client.agent_pools.begin_create_or_update(
        *cluster._name, NAME, aks_pool.body(pod.wanted(), aks_pool.NodeOption(A100, False), None, NOW)
    )
    assert A10 in pod.provision(fallback_instance_types=[A10]).summary
    assert pod.server.azure.made == [A100, A10]


def test_a_busy_cluster_is_waited_for(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.server.azure.busy = 2
    pod.provision()
    assert "waiting: OperationNotAllowed: Operation is not allowed: Another operation" in capsys.readouterr().out
    pod.server.azure.busy = 2
    assert pod.release() == f"deleted node pool {NAME}"


def test_a_cluster_that_stays_busy_ends_the_step_at_its_deadline(pod: Pod) -> None:
    pod.server.azure.busy = 10**6
    with pytest.raises(DeadlineExceeded) as caught:
        pod.provision(deadline_seconds=300)
    assert caught.value.exit_code == 1, "the next attempt continues"
    assert sum(pod.waits) <= 300


def test_a_pool_that_is_not_ready_in_time_is_found_by_the_next_try(pod: Pod) -> None:
    pod.server.azure.looks = 10**6
    with pytest.raises(DeadlineExceeded):
        pod.provision(deadline_seconds=300)
    pod.server.azure.pools[NAME].looks = 3
    pod.waits.clear()
    assert pod.provision(deadline_seconds=300).nodes == [NAME]
    assert pod.server.azure.made == [A100]


def test_release_deletes_what_the_run_made_and_nothing_else(pod: Pod) -> None:
    pod.provision()
    pod.provision(run=OTHER_RUN)
    pod.server.azure.pools["system"] = pod.server.azure.pools[NAME].__class__(
        {"name": "system", "properties": {"mode": "System", "provisioningState": "Succeeded", "tags": {}}}
    )
    assert pod.release() == f"deleted node pool {NAME}"
    assert set(pod.server.azure.pools) == {"system", aks_pool.name(OTHER_RUN)}
    assert pod.release() == "nothing to release: this run has no node pool"


def test_a_pool_of_somebody_else_under_our_name_is_not_touched(pod: Pod) -> None:
    pod.provision()
    pod.server.azure.pools[NAME].properties["tags"] = {"team": "vision"}
    with pytest.raises(BadInput, match="not of this run"):
        pod.release()
    with pytest.raises(BadInput, match="not of this run"):
        pod.provision()
    assert NAME in pod.server.azure.pools


def test_a_pool_that_is_still_being_made_is_released_when_that_has_ended(pod: Pod) -> None:
    cluster = pod.connect()
    cluster.client.agent_pools.begin_create_or_update(
        *cluster._name, NAME, aks_pool.body(pod.wanted(), aks_pool.NodeOption(A100, False), None, NOW)
    )
    assert pod.release() == f"deleted node pool {NAME}"
    assert not pod.server.azure.pools


def test_leftovers_tell_whose_they_are_and_how_old(pod: Pod) -> None:
    pod.provision()
    [found] = aks.list_orphans(ClusterRef(**PLACE), pod.connect())
    assert (found.name, found.run, found.workspace, found.workflow) == (NAME, RUN, "tuned", "tuned-x7k2m")
    assert found.namespace == NAMESPACE
    assert (found.size, found.nodes, found.state, found.made) == (A100, 1, "Succeeded", NOW)
    assert not found.expired(NOW + datetime.timedelta(hours=25))
    assert found.expired(NOW + datetime.timedelta(hours=26))
    aks.remove(ClusterRef(**PLACE), found, pod.connect())
    assert aks.list_orphans(ClusterRef(**PLACE), pod.connect()) == []


def test_a_kubeconfig_leads_there_by_the_names_that_azure_tells(pod: Pod) -> None:
    hosts = [FQDN, FQDN.upper(), FQDN.replace(".hcp", ".portal.hcp"), "127.0.0.1", FQDN.replace("aks-ml", "aks-other")]
    leads = [aks.is_same_cluster(ClusterRef(**PLACE), host, pod.connect()) for host in hosts]
    assert leads == [True, True, True, False, False]


def test_what_is_missing_is_named_at_once(pod: Pod) -> None:
    with pytest.raises(BadInput, match="--run and --instance-type"):
        pod.provision(run="", instance_type="")
    with pytest.raises(BadInput, match="--subscription, --resource-group, --cluster"):
        aks.provision(pod.wanted(subscription="", resource_group="", cluster=""))


def test_a_cluster_that_is_not_there_is_named(pod: Pod) -> None:
    cluster = pod.connect()
    object.__setattr__(cluster, "place", ClusterRef(**{**PLACE, "cluster": "other"}))
    with pytest.raises(BadInput, match="not there") as caught:
        aks.provision(pod.wanted(), cluster)
    assert "cluster of the site profile" in caught.value.fix


def test_provision_and_release_go_to_the_provider(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aks, "provision", lambda settings: ("made", settings.cluster))
    monkeypatch.setattr(aks, "release", lambda settings: f"released {settings.run}")
    assert provision.provision(pod.wanted()) == ("made", "aks-ml")
    assert release.release(ReleaseSettings(work=pod.work, run=RUN, **PLACE)).summary == f"released {RUN}"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert "tuning runs on" in provision.provision(pod.wanted()).summary, "local runs stay local"
    assert "nothing to release" in release.release(ReleaseSettings(work=pod.work, run=RUN, **PLACE)).summary


def run(step: str, pod: Pod, *flags: str) -> subprocess.CompletedProcess[str]:
    """A step as the pod of a Workflow runs it."""
    place = [word for key, value in PLACE.items() for word in (f"--{key.replace('_', '-')}", value)]
    command = [sys.executable, "-m", f"steps.{step}", "--work", str(pod.work), "--run", RUN, *place, *flags]
    environment = {**os.environ, "ARGOTUNE_OUTPUTS": str(pod.work / "outputs")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_as_programs_with_exit_codes(pod: Pod) -> None:
    pod.server.azure.looks = 1
    flags = ["--instance-type", A100, "--labels", '{"apps": "tuned"}', "--zones", '["1"]']
    done = run("provision", pod, *flags)
    assert done.returncode == 0, done.stderr
    assert (pod.work / "outputs" / "nodes").read_text() == f'["{NAME}"]'
    assert (pod.work / "outputs" / "device").read_text() == "cuda"
    done = run("release", pod)
    assert done.returncode == 0, done.stderr
    assert f"summary: deleted node pool {NAME}" in done.stdout
    pod.server.azure.failing[f"{A100} zone 1"] = FULL
    done = run("provision", pod, *flags)
    assert done.returncode == 4
    assert f"{A100} (on demand) in zone 1: the region has no machine of this size free" in done.stderr
    assert "Traceback" not in done.stderr
    assert not pod.server.azure.pools
