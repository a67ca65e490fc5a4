"""The AKS node pool of a run: the requests and their order; it is created once and released."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from arm_fixture import CLUSTER_REF, NAMESPACE, NOW, RUN, Pod, serve_pod
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


def test_pool_has_the_properties_of_the_workspace(pod: Pod) -> None:
    result = pod.provision(count=2, labels={"apps": "tuned", "kubernetes.io/os": "linux"}, zones=["2"])
    assert (result.device, result.nodes) == ("cuda", [NAME])
    assert result.summary == f"node pool {NAME}: 2 x {A100} (on demand) in zone 2, only for this run"
    properties = pod.server.azure.pools[NAME].properties
    assert properties["nodeTaints"] == ["sku=gpu:NoSchedule"]
    assert properties["nodeLabels"] == {"apps": "tuned", "argotune.dev/run": RUN}, "system labels are not set"
    assert (properties["count"], properties["minCount"], properties["maxCount"], properties["enableAutoScaling"]) == (
        2,
        0,
        2,
        True,
    )
    assert (properties["vmSize"], properties["availabilityZones"], properties["mode"]) == (A100, ["2"], "User")
    assert properties["vnetSubnetID"].endswith("/subnet"), "the subnet of the system pool"
    assert "scaleSetPriority" not in properties and "osSKU" not in properties
    assert properties["tags"] == {
        "argotune-run": RUN,
        "argotune-workflow": "tuned-x7k2m",
        "argotune-workspace": "tuned",
        "argotune-namespace": NAMESPACE,
        "argotune-made": "2026-11-24T12:00:00+00:00",
        "argotune-lease-until": "2026-11-25T14:00:00+00:00",
    }
    assert RETRY_AFTER in pod.waits, "the wait that Azure requested"


def test_the_pool_has_the_requested_image_family(pod: Pod) -> None:
    pod.provision(image_family="azurelinux")
    assert pod.server.azure.pools[NAME].properties["osSKU"] == "AzureLinux"


def test_name_is_valid_in_aks() -> None:
    assert len(NAME) == 12
    assert NAME.isalnum() and NAME.islower() and NAME[0].isalpha()
    assert aks_pool.name(OTHER_RUN) != NAME


def test_existing_pool_is_reused(pod: Pod) -> None:
    first = pod.provision()
    assert pod.provision() == first
    assert pod.server.azure.made == [A100]


def test_concurrent_provisions_create_one_pool(pod: Pod) -> None:
    """The other attempt creates the pool between the check and the request of the first."""
    cluster, other = pod.connect(), pod.connect()
    create = cluster.create

    def late(name: str, body: object) -> None:
        other.create(name, body)  # type: ignore[arg-type]
        create(name, body)  # type: ignore[arg-type]

    object.__setattr__(cluster, "create", late)
    assert aks.provision(pod.settings(), cluster).nodes == [NAME]
    assert pod.server.azure.made == [A100]


def test_spot_is_tried_before_on_demand(pod: Pod) -> None:
    pod.server.azure.failing[f"{A100} spot"] = FULL
    pod.server.azure.failing[f"{A10} spot"] = FULL
    result = pod.provision(spot=True, fallback_instance_types=[A10])
    assert pod.server.azure.made == [f"{A100} spot", f"{A10} spot", A100]
    assert pod.server.azure.most == 1, "the failed pool is deleted before the next is created"
    assert "on demand" in result.summary


def test_spot_pool_has_the_properties_that_azure_requires(pod: Pod) -> None:
    assert "(spot)" in pod.provision(spot=True).summary
    properties = pod.server.azure.pools[NAME].properties
    assert (properties["scaleSetPriority"], properties["scaleSetEvictionPolicy"], properties["spotMaxPrice"]) == (
        "Spot",
        "Delete",
        -1,
    )


def test_instance_types_and_zones_are_tried_in_order(pod: Pod) -> None:
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
        ("SkuNotAvailable", "The requested VM size is currently not available", "not offered to this"),
        (
            "BadRequest",
            "The VM size of Standard_X is not allowed in your subscription",
            "not offered to this",
        ),
        ("OverconstrainedAllocationRequest", "Allocation failed", "for this combination"),
        (
            "CreateVMSSAgentPoolFailed",
            'Code="AllocationFailed" Message="..."',
            "out of capacity for this",
        ),
    ],
)
@pytest.mark.parametrize("how", ["rejected", "failed"])
def test_missing_capacity_is_reported_with_its_reason(pod: Pod, code: str, message: str, words: str, how: str) -> None:
    if how == "rejected":
        pod.server.azure.refusing[A100] = (409 if code == "OperationNotAllowed" else 400, code, message)
    else:
        pod.server.azure.failing[A100] = (code, message)
    with pytest.raises(InsufficientCapacity) as caught:
        pod.provision()
    assert caught.value.exit_code == 4
    assert f"1 x {A100} is not available:\n  {A100} (on demand): " in caught.value.message
    assert words in caught.value.message
    assert "fallbackInstanceTypes" in caught.value.fix
    assert not pod.server.azure.pools, "the failed pool is deleted"


def test_pool_that_failed_for_another_reason_is_created_again_by_the_next_attempt(pod: Pod) -> None:
    pod.server.azure.failing[A100] = ("VMExtensionProvisioningError", "The driver could not be installed.")
    with pytest.raises(StepError, match="VMExtensionProvisioningError") as caught:
        pod.provision(fallback_instance_types=[A10])
    assert caught.value.exit_code == 1
    assert pod.server.azure.made == [A100], "another size would not help"
    pod.server.azure.failing.clear()
    pod.provision()
    assert pod.server.azure.made == [A100, A100]
    assert pod.server.azure.most == 1


def test_restarted_step_skips_the_option_that_failed(pod: Pod) -> None:
    pod.server.azure.failing[A100] = FULL
    cluster = pod.connect()
    cluster.client.agent_pools.begin_create_or_update(
        *cluster._name, NAME, aks_pool.body(pod.settings(), aks_pool.NodeOption(A100, False), None, NOW)
    )
    assert A10 in pod.provision(fallback_instance_types=[A10]).summary
    assert pod.server.azure.made == [A100, A10]


def test_busy_cluster_is_retried(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    pod.server.azure.busy = 2
    pod.provision()
    assert "waiting: OperationNotAllowed: Operation is not allowed: Another operation" in capsys.readouterr().out
    pod.server.azure.busy = 2
    assert pod.release() == f"deleted node pool {NAME}"


def test_busy_cluster_fails_the_step_at_its_deadline(pod: Pod) -> None:
    pod.server.azure.busy = 10**6
    with pytest.raises(DeadlineExceeded) as caught:
        pod.provision(deadline_seconds=300)
    assert caught.value.exit_code == 1, "the next attempt continues"
    assert sum(pod.waits) <= 300


def test_pool_that_is_not_ready_in_time_is_found_by_the_next_attempt(pod: Pod) -> None:
    pod.server.azure.looks = 10**6
    with pytest.raises(DeadlineExceeded):
        pod.provision(deadline_seconds=300)
    pod.server.azure.pools[NAME].looks = 3
    pod.waits.clear()
    assert pod.provision(deadline_seconds=300).nodes == [NAME]
    assert pod.server.azure.made == [A100]


def test_release_deletes_only_the_pool_of_the_run(pod: Pod) -> None:
    pod.provision()
    pod.provision(run=OTHER_RUN)
    pod.server.azure.pools["system"] = pod.server.azure.pools[NAME].__class__(
        {"name": "system", "properties": {"mode": "System", "provisioningState": "Succeeded", "tags": {}}}
    )
    assert pod.release() == f"deleted node pool {NAME}"
    assert set(pod.server.azure.pools) == {"system", aks_pool.name(OTHER_RUN)}
    assert pod.release() == "nothing to release: this run has no node pool"


def test_pool_of_the_same_name_without_the_tag_is_not_changed(pod: Pod) -> None:
    pod.provision()
    pod.server.azure.pools[NAME].properties["tags"] = {"team": "vision"}
    with pytest.raises(BadInput, match="belongs to another run"):
        pod.release()
    with pytest.raises(BadInput, match="belongs to another run"):
        pod.provision()
    assert NAME in pod.server.azure.pools


def test_pool_in_creation_is_released_once_it_is_settled(pod: Pod) -> None:
    cluster = pod.connect()
    cluster.client.agent_pools.begin_create_or_update(
        *cluster._name, NAME, aks_pool.body(pod.settings(), aks_pool.NodeOption(A100, False), None, NOW)
    )
    assert pod.release() == f"deleted node pool {NAME}"
    assert not pod.server.azure.pools


def test_orphans_are_listed_with_run_and_lease(pod: Pod) -> None:
    pod.provision()
    [found] = aks.list_orphans(ClusterRef(**CLUSTER_REF), pod.connect())
    assert (found.name, found.run, found.workspace, found.workflow) == (NAME, RUN, "tuned", "tuned-x7k2m")
    assert found.namespace == NAMESPACE
    assert (found.size, found.nodes, found.state, found.created) == (A100, 1, "Succeeded", NOW)
    assert not found.expired(NOW + datetime.timedelta(hours=25))
    assert found.expired(NOW + datetime.timedelta(hours=26))
    aks.remove(ClusterRef(**CLUSTER_REF), found, pod.connect())
    assert aks.list_orphans(ClusterRef(**CLUSTER_REF), pod.connect()) == []


def test_same_cluster_by_the_host_names_of_azure(pod: Pod) -> None:
    hosts = [FQDN, FQDN.upper(), FQDN.replace(".hcp", ".portal.hcp"), "127.0.0.1", FQDN.replace("aks-ml", "aks-other")]
    same = [aks.is_same_cluster(ClusterRef(**CLUSTER_REF), host, pod.connect()) for host in hosts]
    assert same == [True, True, True, False, False]


def test_missing_settings_are_reported_together(pod: Pod) -> None:
    with pytest.raises(BadInput, match="--run and --instance-type"):
        pod.provision(run="", instance_type="")
    with pytest.raises(BadInput, match="--subscription, --resource-group, --cluster"):
        aks.provision(pod.settings(subscription="", resource_group="", cluster=""))


def test_missing_cluster_is_reported(pod: Pod) -> None:
    cluster = pod.connect()
    object.__setattr__(cluster, "cluster_ref", ClusterRef(**{**CLUSTER_REF, "cluster": "other"}))
    with pytest.raises(BadInput, match="not found") as caught:
        aks.provision(pod.settings(), cluster)
    assert "cluster in the site profile" in caught.value.fix


def test_provision_and_release_call_the_provider(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aks, "provision", lambda settings: ("created", settings.cluster))
    monkeypatch.setattr(aks, "release", lambda settings: f"released {settings.run}")
    assert provision.provision(pod.settings()) == ("created", "aks-ml")
    assert release.release(ReleaseSettings(work=pod.work, run=RUN, **CLUSTER_REF)).summary == f"released {RUN}"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert "tuning runs on" in provision.provision(pod.settings()).summary, "local runs stay local"
    assert "nothing to release" in release.release(ReleaseSettings(work=pod.work, run=RUN, **CLUSTER_REF)).summary


def run(step: str, pod: Pod, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a step as a pod of a Workflow does."""
    place = [word for key, value in CLUSTER_REF.items() for word in (f"--{key.replace('_', '-')}", value)]
    command = [sys.executable, "-m", f"steps.{step}", "--work", str(pod.work), "--run", RUN, *place, *flags]
    environment = {**os.environ, "ARGOTUNE_OUTPUTS": str(pod.work / "outputs")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_programs_and_their_exit_codes(pod: Pod) -> None:
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
    assert f"{A100} (on demand) in zone 1: the region is out of capacity for this instance type" in done.stderr
    assert "Traceback" not in done.stderr
    assert not pod.server.azure.pools
