"""``argo/install`` admits compiled Workflows: accounts, claims, quota, limits, Pod Security, network."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity
from kubernetes_manifests import build, faults, of_kind

from workflows.compile.dag import compile_workflow
from workflows.load_plans import load_plans
from workflows.plan.model import Plan

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "argo" / "install"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
WORKFLOW_POD = {"workflows.argoproj.io/workflow": "oncall-x7k2p"}


@pytest.fixture(scope="module")
def installed() -> list[dict[str, Any]]:
    return build(INSTALL)


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def compiled(request, monkeypatch, tmp_path) -> list[tuple[Plan, dict[str, Any]]]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)
    monkeypatch.chdir(ROOT)
    return [(plan, compile_workflow(plan)) for plan in load_plans(str(request.param.relative_to(ROOT)))]


def test_compiled_examples_find_their_account_and_claim(installed, compiled):
    assert compiled
    for plan, workflow in compiled:
        spec = workflow["spec"]
        assert spec["serviceAccountName"] in of_kind(installed, "ServiceAccount")
        claims = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in spec["volumes"]
            if "persistentVolumeClaim" in volume
        }
        assert plan.storage.models_claim in claims
        assert claims - claims_of_the_workspace(plan) <= set(of_kind(installed, "PersistentVolumeClaim"))
        locks = [lock["configMapKeyRef"] for lock in semaphores(spec)]
        known = of_kind(installed, "ConfigMap")
        assert [lock for lock in locks if lock["key"] not in known[lock["name"]]["data"]] == []


def claims_of_the_workspace(plan: Plan) -> set[str]:
    """Return the claims that the Workspace names; its author creates them."""
    adapters = plan.rollout.adapters if plan.rollout else []
    sources = [part.volume for part in (plan.data, plan.output, *adapters) if part and part.volume]
    return {source["persistentVolumeClaim"]["claimName"] for source in sources if "persistentVolumeClaim" in source}


def semaphores(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield from value.get("semaphores", [])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from semaphores(item)


def test_compiled_examples_fit_quota_and_limits(installed, compiled):
    quota = of_kind(installed, "ResourceQuota")["argotune"]["spec"]["hard"]
    limits = {item["type"]: item for item in of_kind(installed, "LimitRange")["argotune"]["spec"]["limits"]}
    # A quota on any of these would reject pods whose containers do not set them.
    assert not {"limits.cpu", "limits.memory", "requests.cpu", "requests.memory"} & set(quota)
    models = [claim["spec"] for claim in of_kind(installed, "PersistentVolumeClaim").values()]
    for _, workflow in compiled:
        claims = [*models, *(claim["spec"] for claim in workflow["spec"]["volumeClaimTemplates"])]
        sizes = [parse_quantity(claim["resources"]["requests"]["storage"]) for claim in claims]
        for size in sizes:
            low, high = (parse_quantity(limits["PersistentVolumeClaim"][end]["storage"]) for end in ("min", "max"))
            assert low <= size <= high
        assert sum(sizes) <= parse_quantity(quota["requests.storage"])
        assert len(claims) <= int(quota["persistentvolumeclaims"])
        for container in containers(workflow):
            resources = container["resources"]
            assert int(resources["requests"].get("nvidia.com/gpu", 0)) <= int(quota["requests.nvidia.com/gpu"])
            assert exceeded_limits(limits["Container"], resources) == []


def containers(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    found = [template["container"] for template in workflow["spec"]["templates"] if "container" in template]
    assert found
    return found


def exceeded_limits(item: dict[str, Any], resources: dict[str, Any]) -> list[str]:
    """Return the resources whose request exceeds the limit, with the defaults of a LimitRange."""
    limits = item.get("max", {}) | item.get("default", {}) | resources.get("limits", {})
    requests = item.get("defaultRequest", {}) | resources.get("requests", {})
    return [
        name
        for name, request in requests.items()
        if name in limits and parse_quantity(request) > parse_quantity(limits[name])
    ]


def test_default_limit_would_reject_the_tuning_pod(compiled):
    """The reason why ``quota.yaml`` sets neither a default limit nor a maximum for containers."""
    for _, workflow in compiled:
        exceeded = [
            exceeded_limits({"max": {"memory": "1Mi"}}, container["resources"]) for container in containers(workflow)
        ]
        assert ["memory"] in exceeded


def test_compiled_pods_pass_pod_security_restricted(compiled):
    patch = yaml.safe_load((INSTALL / "controller-patch.yaml").read_text())
    executor = yaml.safe_load(patch["data"]["executor"])
    assert faults(executor["securityContext"], "V1SecurityContext") == []
    for _, workflow in compiled:
        spec = workflow["spec"]
        for container in [*containers(workflow), executor]:
            assert not_restricted(spec, container["securityContext"]) == []
    assert not_restricted(spec, {}) == ["allowPrivilegeEscalation", "capabilities"], "the patch is not needed"


def not_restricted(pod: dict[str, Any], container: dict[str, Any]) -> list[str]:
    """Return the fields that violate "restricted" (kubernetes.io/docs/concepts/security/pod-security-standards)."""
    effective = pod.get("securityContext", {}) | container
    capabilities = container.get("capabilities", {})
    volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"}
    volumes |= {"persistentVolumeClaim", "projected", "secret"}
    checks = {
        "allowPrivilegeEscalation": container.get("allowPrivilegeEscalation") is False,
        "capabilities": "ALL" in capabilities.get("drop", [])
        and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "runAsNonRoot": effective.get("runAsNonRoot") is True,
        "runAsUser": effective.get("runAsUser") != 0,
        "seccompProfile": effective.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
        "privileged": not container.get("privileged"),
        "host": not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
        "volumes": all(set(volume) - {"name"} <= volumes for volume in pod.get("volumes", [])),
    }
    return [name for name, passed in checks.items() if not passed]


# Network


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "Exists" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        expression["key"] in labels for expression in expressions
    )


def reaches(
    documents: list[dict[str, Any]], labels: dict[str, str], to: str, port: int, protocol: str = "TCP"
) -> bool:
    """Return True if a pod with these labels can connect to an address, or to pods as ``namespace/k8s-app``."""
    policies = [policy["spec"] for policy in of_kind(documents, "NetworkPolicy").values()]
    chosen = [spec for spec in policies if "Egress" in spec["policyTypes"] and selects(spec["podSelector"], labels)]
    return not chosen or any(
        ("ports" not in rule or {"protocol": protocol, "port": port} in rule["ports"])
        and ("to" not in rule or any(peer(p, to) for p in rule["to"]))
        for spec in chosen
        for rule in spec.get("egress", [])
    )


def peer(rule: dict[str, Any], to: str) -> bool:
    pods = re.fullmatch(r"([a-z-]+)/([a-z-]+)", to)
    if pods or "ipBlock" not in rule:
        return bool(pods) and all(
            selects(rule.get(name, {"matchLabels": {"never": ""}}), labels)
            for name, labels in (
                ("namespaceSelector", {"kubernetes.io/metadata.name": pods[1]}),
                ("podSelector", {"k8s-app": pods[2]}),
            )
        )
    address = ipaddress.ip_address(to)
    inside = [ipaddress.ip_network(cidr) for cidr in rule["ipBlock"].get("except", [])]
    return address in ipaddress.ip_network(rule["ipBlock"]["cidr"]) and not any(
        address in network for network in inside
    )


def test_ingress_and_other_pods_are_denied(installed):
    policies = of_kind(installed, "NetworkPolicy")
    everything = policies["default-deny"]["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = {name: policy["spec"] for name, policy in policies.items() if "ingress" in policy["spec"]}
    assert list(opened) == ["tune-nodes"]
    nodes = {"matchExpressions": [{"key": "argotune.dev/tune", "operator": "Exists"}]}
    assert opened["tune-nodes"]["podSelector"] == nodes, "the nodes of trainings"
    assert opened["tune-nodes"]["ingress"] == [{"from": [{"podSelector": nodes}]}], "from each other only"
    for to, port in (("93.184.216.34", 443), ("kube-system/kube-dns", 53), ("10.0.0.1", 6443)):
        assert not reaches(installed, {"app": "something-else"}, to, port)


@pytest.mark.parametrize(
    ("to", "port", "protocol", "allowed"),
    [
        ("kube-system/kube-dns", 53, "UDP", True),
        ("kube-system/kube-dns", 53, "TCP", True),
        ("169.254.20.10", 53, "UDP", True),  # NodeLocal DNSCache
        ("169.254.10.11", 53, "UDP", True),  # AKS LocalDNS
        ("93.184.216.34", 443, "TCP", True),  # data, models, a public registry
        ("2606:2800:220:1::1", 443, "TCP", True),
        ("10.1.2.3", 443, "TCP", True),  # private endpoint of a registry
        ("10.1.2.3", 6443, "TCP", True),  # API server inside the cluster
        ("169.254.169.254", 80, "TCP", False),  # metadata service of the clouds
        ("169.254.169.254", 443, "TCP", False),
        ("fe80::1", 443, "TCP", False),
        ("168.63.129.16", 80, "TCP", False),  # Azure's WireServer
        ("168.63.129.16", 32526, "TCP", False),
        ("93.184.216.34", 80, "TCP", False),
        ("93.184.216.34", 53, "UDP", False),  # DNS that bypasses the cluster
        ("kube-system/metrics-server", 53, "UDP", False),
        ("shop/kube-dns", 53, "UDP", False),
        ("10.1.2.3", 22, "TCP", False),
    ],
)
def test_network_access_of_workflow_pods(installed, to, port, protocol, allowed):
    assert reaches(installed, WORKFLOW_POD, to, port, protocol) is allowed
