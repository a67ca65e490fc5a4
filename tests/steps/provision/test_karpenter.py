from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from karpenter_controller import A100, H100, NOW, RUN, UNAVAILABLE, Controller, Pod
from kubernetes_server import KubernetesServer

from steps.provision import karpenter, karpenter_objects, nodes
from steps.provision.node_providers import RUN_LABEL
from steps.provision.nodes import NodeOption
from steps.provision.settings import ClusterRef
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

DEFINITION = Path(__file__).parents[2] / "data" / "karpenter" / "karpenter.sh_nodeclaims.yaml"
SPOT, ON_DEMAND = "spot", "on-demand"


@pytest.fixture
def controller(cluster: KubernetesServer) -> Controller:
    return Controller(cluster)


@pytest.fixture
def pod(cluster: KubernetesServer, controller: Controller, tmp_path: Path) -> Pod:
    return Pod(cluster, tmp_path)


def strict_schema(schema: Any) -> Any:
    """Return a schema that rejects unknown fields, as ``kubectl --validate=strict`` does."""
    if isinstance(schema, list):
        return [strict_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict_schema(value) for key, value in schema.items()}
    # Karpenter's generator sets limits of the items on the list.
    if closed.get("type") == "array":
        closed.pop("maxLength", None)
        closed.pop("pattern", None)
    if isinstance(closed.get("properties"), dict) and "type" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


@pytest.fixture(scope="module")
def claim_spec() -> Any:
    version = yaml.safe_load(DEFINITION.read_text())["spec"]["versions"][0]
    assert version["name"] == "v1"
    return strict_schema(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


def test_claims_have_the_properties_of_the_workspace(
    pod: Pod, cluster: KubernetesServer, controller: Controller
) -> None:
    result = pod.provision(count=2)
    assert (result.device, result.nodes) == ("cuda", ["node-" + name for name in sorted(controller.machines)])
    assert result.summary.endswith(f"2 x {A100} (on demand), only for this run")
    first = cluster.all("nodeclaims")[0]
    assert first["metadata"]["labels"] | {RUN_LABEL: RUN, "apps": "tuned"} == first["metadata"]["labels"]
    assert (
        first["metadata"]["annotations"]
        | {
            "argotune.dev/workflow": "tuned-x7k2m",
            "argotune.dev/workspace": "tuned",
            "argotune.dev/lease-until": (NOW + datetime.timedelta(hours=26)).isoformat(),
            "karpenter.sh/do-not-disrupt": "true",
        }
        == first["metadata"]["annotations"]
    )
    assert first["spec"]["nodeClassRef"] == {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
    assert first["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert first["spec"]["expireAfter"] == "93600s"
    (pool,) = cluster.all("nodepools")
    assert first["metadata"]["labels"]["karpenter.sh/nodepool"] == pool["metadata"]["name"]
    assert pool["spec"]["limits"] == {"nvidia.com/gpu": "2"}
    assert pool["spec"]["template"]["metadata"]["labels"] == {"apps": "tuned", RUN_LABEL: RUN}


@pytest.mark.parametrize(
    "node_class", ["default", "KaitoNodeClass/default", "EC2NodeClass/gpu", "KWOKNodeClass.karpenter.kwok.sh/default"]
)
def test_documents_match_the_schema_of_karpenter(pod: Pod, claim_spec: Any, node_class: str) -> None:
    spot = not node_class.startswith("Kaito")
    settings = pod.settings(
        node_class=node_class, spot=spot, fallback_instance_types=[H100], zones=["eastus-1"], count=2
    )
    claims = [karpenter_objects.claim(settings, option, 1, NOW) for option in nodes.node_options(settings)]
    pools = karpenter_objects.pools(settings, NOW)
    assert len(claims) == (4 if spot else 2) and len(pools) == (4 if spot else 0)
    for spec in [claim["spec"] for claim in claims] + [pool["spec"]["template"]["spec"] for pool in pools]:
        jsonschema.validate(spec, claim_spec)
        assert len(next(r["values"] for r in spec["requirements"] if r["key"].endswith("instance-type"))) == 1
    names = {claim["metadata"]["name"] for claim in claims}
    assert len(names) == 1 and all(len(name) <= 11 and name.isalnum() for name in names)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**claims[0]["spec"], "replicas": 1}, claim_spec)


def test_claim_for_gpu_provisioner(pod: Pod, cluster: KubernetesServer) -> None:
    cluster.resources = [resource for resource in cluster.resources if resource.plural != "nodepools"]
    pod.provision(node_class="KaitoNodeClass/default")
    (claim,) = cluster.all("nodeclaims")
    assert claim["metadata"]["labels"]["karpenter.sh/nodepool"] == "kaito"
    assert claim["spec"]["resources"] == {"requests": {"storage": "1024Gi"}}
    assert claim["spec"]["nodeClassRef"] == {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"}
    keys = {entry["key"]: entry["values"] for entry in claim["spec"]["requirements"]}
    assert keys["karpenter.azure.com/sku-name"] == [A100] and keys["karpenter.sh/nodepool"] == ["kaito"]
    assert "karpenter.sh/capacity-type" not in keys
    assert pod.release().startswith("deleted nodeclaims")
    with pytest.raises(BadInput, match="creates no spot nodes"):
        pod.provision(node_class="KaitoNodeClass/default", spot=True)
    with pytest.raises(BadInput, match="API group of this kind is unknown"):
        pod.provision(node_class="Other/default")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gpu", ("karpenter.azure.com", "AKSNodeClass", "gpu")),
        ("EC2NodeClass/gpu", ("karpenter.k8s.aws", "EC2NodeClass", "gpu")),
        ("EC2NodeClass.karpenter.k8s.aws/gpu", ("karpenter.k8s.aws", "EC2NodeClass", "gpu")),
        ("KWOKNodeClass.karpenter.kwok.sh/default", ("karpenter.kwok.sh", "KWOKNodeClass", "default")),
        ("GCENodeClass.karpenter.k8s.gcp/a.b", ("karpenter.k8s.gcp", "GCENodeClass", "a.b")),
    ],
)
def test_a_node_class_of_any_cloud_is_accepted(pod: Pod, value: str, expected: tuple[str, str, str]) -> None:
    settings = pod.settings(node_class=value, spot=True)
    group, kind, name = expected
    (pool, *_) = karpenter_objects.pools(settings, NOW)
    reference = {"group": group, "kind": kind, "name": name}
    assert pool["spec"]["template"]["spec"]["nodeClassRef"] == reference
    claim = karpenter_objects.claim(settings, nodes.node_options(settings)[0], 0, NOW)
    assert claim["spec"]["nodeClassRef"] == reference


def test_next_option_is_tried_if_one_is_unavailable(
    pod: Pod, cluster: KubernetesServer, controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.unavailable = {(A100, SPOT), (H100, SPOT), (A100, ON_DEMAND)}
    result = pod.provision(spot=True, fallback_instance_types=[H100])
    assert f"1 x {H100} (on demand)" in result.summary
    assert controller.launched == [f"{H100} {ON_DEMAND}"] and len(controller.machines) == 1
    assert (
        f"unavailable: {A100} (spot): the region is out of capacity for this instance type" in capsys.readouterr().out
    )
    weights = {
        (pool["spec"]["template"]["spec"]["requirements"][0]["values"][0], pool["spec"]["weight"])
        for pool in cluster.all("nodepools")
    }
    assert weights == {(A100, 100), (H100, 99), (A100, 98), (H100, 97)}


def test_each_unavailable_option_is_reported_with_its_reason(pod: Pod, controller: Controller) -> None:
    controller.unavailable = {(A100, SPOT), (A100, ON_DEMAND)}
    with pytest.raises(InsufficientCapacity) as caught:
        pod.provision(spot=True)
    assert caught.value.exit_code == 4
    assert caught.value.message.count(UNAVAILABLE) == 2
    assert "fallbackInstanceTypes" in caught.value.fix
    assert controller.launched == [] and pod.cluster.all("nodeclaims") == []
    pod.release()
    assert pod.cluster.all("nodepools") == []


def test_option_with_too_few_machines_is_released(pod: Pod, controller: Controller) -> None:
    """One of two machines is launched and the second is not: both are deleted."""
    seen = controller._advance

    def one_only(claim: dict[str, Any]) -> None:
        if f"{A100} {ON_DEMAND}" in controller.launched and claim["metadata"]["name"].endswith("01"):
            controller.unavailable.add((A100, ON_DEMAND))
        seen(claim)

    controller._advance = one_only  # type: ignore[method-assign]
    result = pod.provision(count=2, fallback_instance_types=[H100])
    assert f"2 x {H100}" in result.summary
    assert len(controller.machines) == 2


def test_quota_in_a_launch_message_is_missing_capacity(pod: Pod, controller: Controller) -> None:
    controller.failing = "creating instance, QuotaExceeded: Operation could not be completed"
    with pytest.raises(InsufficientCapacity, match="the quota is used up"):
        pod.provision()


def test_an_instance_type_that_the_region_does_not_offer_is_unavailable(pod: Pod, controller: Controller) -> None:
    controller.failing = f"translating nodeclaim to node, instance type not found (instance-type={A100})"
    with pytest.raises(InsufficientCapacity, match="the region does not offer this instance type"):
        pod.provision()


def test_a_claim_that_karpenter_gives_up_is_reported_with_its_last_state(pod: Pod, controller: Controller) -> None:
    """Recorded from Karpenter 1.13: its warning is about the deletion, and the cause is the condition Launched."""
    controller.failing = "authorization failed"
    seen = controller._advance

    def give_up(claim: dict[str, Any]) -> None:
        if "status" in claim:
            controller._event(claim, "TerminationGracePeriodExpiring", "All pods will be deleted by 2026-11-29T04:15Z")
            controller._remove("nodeclaims", claim["metadata"]["name"])
        else:
            seen(claim)

    controller._advance = give_up  # type: ignore[method-assign]
    with pytest.raises(StepError, match=r"no machine is allocated yet \(authorization failed\)") as caught:
        pod.provision()
    assert "All pods" not in caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"failing": "authorization failed"}, r"no machine is allocated yet \(authorization failed\)"),
        ({"stage": "Launched"}, "has not joined the cluster"),
        ({"stage": "Registered"}, "not ready yet"),
        ({"gpus": 0}, r"has 0 of 1 allocatable nvidia\.com/gpu.*device plugin"),
    ],
)
def test_state_at_the_deadline_is_reported(
    pod: Pod, controller: Controller, change: dict[str, Any], message: str
) -> None:
    for name, value in change.items():
        setattr(controller, name, value)
    with pytest.raises(StepError, match=message) as caught:
        pod.provision(deadline_seconds=100)
    assert caught.value.exit_code == 1
    assert len(pod.waits) == 10
    for name, value in {"failing": "", "stage": "Ready", "gpus": 1}.items():
        setattr(controller, name, value)
    for node in pod.cluster.all("nodes"):
        pod.cluster.put({**node, "status": {"allocatable": {"nvidia.com/gpu": "1"}}})
    pod.waits.clear()
    assert pod.provision().nodes and len(controller.launched) == 1


def test_existing_nodes_are_reused(pod: Pod, cluster: KubernetesServer, controller: Controller) -> None:
    first = pod.provision(spot=True, fallback_instance_types=[H100])
    assert pod.provision(spot=True, fallback_instance_types=[H100]) == first
    assert controller.launched == [f"{A100} {SPOT}"]


def test_object_of_another_run_is_not_changed(pod: Pod, cluster: KubernetesServer, controller: Controller) -> None:
    name = karpenter_objects.claim_name(RUN, 0)
    body = karpenter_objects.claim(pod.settings(run="another"), NodeOption(A100, False), 0, NOW)
    cluster.put({**body, "metadata": {**body["metadata"], "name": name}})
    with pytest.raises(BadInput, match="belongs to another run"):
        pod.provision()
    pod.release()
    assert [claim["metadata"]["name"] for claim in cluster.all("nodeclaims")] == [name]


def test_release_deletes_only_the_objects_of_the_run(
    pod: Pod, cluster: KubernetesServer, controller: Controller
) -> None:
    pod.provision(run="another")
    pod.provision(count=2, spot=True)
    message = pod.release()
    assert message.count("nodeclaims") == 2 and message.count("nodepools") == 2
    assert {claim["metadata"]["labels"][RUN_LABEL] for claim in cluster.all("nodeclaims")} == {"another"}
    assert {pool["metadata"]["labels"][RUN_LABEL] for pool in cluster.all("nodepools")} == {"another"}
    assert pod.release() == "nothing to release: this run has no nodes"
    with pytest.raises(BadInput, match="--run is required"):
        pod.release("")


def test_orphans_are_listed_with_their_lease_and_removed(pod: Pod, controller: Controller) -> None:
    pod.provision(count=2)
    pod.provision(run="another", lease_seconds=60, workspace="old")
    orphans = {orphan.run: orphan for orphan in pod.list_orphans()}
    assert set(orphans) == {RUN, "another"}
    mine, other = orphans[RUN], orphans["another"]
    assert (mine.nodes, mine.size, mine.state, mine.workflow) == (2, A100, "Ready", "tuned-x7k2m")
    assert mine.namespace == "argotune"
    later = NOW + datetime.timedelta(minutes=2)
    assert [mine.expired(later), other.expired(later), other.expired(NOW)] == [False, True, False]
    karpenter.remove(ClusterRef(provider="karpenter"), other, pod.connect())
    assert [orphan.run for orphan in pod.list_orphans()] == [RUN]


def test_missing_karpenter_is_reported(pod: Pod, cluster: KubernetesServer) -> None:
    cluster.without("karpenter.sh")
    with pytest.raises(BadInput, match=r"the cluster has no nodepools\.karpenter\.sh"):
        pod.provision()
    with pytest.raises(BadInput, match="--instance-type"):
        pod.provision(instance_type="")
