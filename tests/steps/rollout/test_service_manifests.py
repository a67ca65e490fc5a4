"""The objects of a service are valid Kubernetes and equal the golden file.

ARGOTUNE_REGENERATE=1 pytest tests/steps/rollout/test_service_manifests.py   writes the golden file.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from pydantic import ValidationError

from steps.rollout import image_volumes, rollout_cluster, service_manifests
from steps.rollout.service_release import STABLE
from steps.rollout.settings import Settings
from steps.serving.desired_adapters import DesiredAdapter

GOLDEN = Path(__file__).parents[2] / "data" / "service.yaml"
MODELS = {
    "Deployment": client.V1Deployment,
    "Service": client.V1Service,
    "ConfigMap": client.V1ConfigMap,
    "PodDisruptionBudget": client.V1PodDisruptionBudget,
    "NetworkPolicy": client.V1NetworkPolicy,
    "HorizontalPodAutoscaler": client.V2HorizontalPodAutoscaler,
}


def settings_of(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "work": Path("/mnt/work"), "name": "oncall", "preset": "phi-4-mini-instruct",
        "model": "microsoft/Phi-4-mini-instruct", "revision": "abc", "serve_image": "serve:1", "replicas": 2,
        "gpus": 2,
        "context_length": 8192, "max_replicas": 4, "models_claim": "argotune-models", "access_secret": "hub",
        "registry_secrets": ["registry"], "node_labels": {"apps": "oncall"}, "service_account": "argotune",
        "instance_types": ["Standard_NC48ads_A100_v4", "Standard_NC80adis_H100_v5"],
        "server_arguments": {"max_num_seqs": 8},
        "adapter_volumes": {"old": {"persistentVolumeClaim": {"claimName": "c"}}},
    }  # fmt: skip
    return Settings(**values | changes)


def objects(settings: Settings) -> list[dict[str, Any]]:
    adapter = DesiredAdapter("oncall", "sha256:" + "a" * 64, image="registry.example.com/team/oncall")
    release = rollout_cluster.build_release(settings)
    scaled = settings.max_replicas > settings.replicas
    return [
        service_manifests.adapters_config_map("oncall", release.revision, [adapter]),
        service_manifests.deployment("oncall", STABLE, release, scaled=scaled, deadline=900),
        *(body for _, body in service_manifests.supporting_objects(settings)),
    ]


def test_objects_equal_the_golden_file() -> None:
    if os.environ.get("ARGOTUNE_REGENERATE") == "1":
        GOLDEN.write_text(yaml.safe_dump_all(objects(settings_of()), sort_keys=False, width=110))
    assert objects(settings_of()) == list(yaml.safe_load_all(GOLDEN.read_text()))  # quoting can differ


def mounted() -> list[dict[str, Any]]:
    """Return the Deployment whose servers mount the adapter."""
    adapter = DesiredAdapter("oncall", "sha256:" + "a" * 64, image="registry.example.com/team/oncall")
    release = dataclasses.replace(rollout_cluster.build_release(settings_of(hot_load=False)), adapters=[adapter])
    release = image_volumes.mount_images(release, "registry")
    return [service_manifests.deployment("oncall", STABLE, release, scaled=False, deadline=900)]


def test_image_volumes_are_valid_kubernetes() -> None:
    (document,) = mounted()
    assert list(unknown(document, "V1Deployment")) == []
    pod = document["spec"]["template"]["spec"]
    volume = {"reference": "registry.example.com/team/oncall@sha256:" + "a" * 64, "pullPolicy": "IfNotPresent"}
    assert pod["volumes"][-1] == {"name": "image-aaaaaaaaaaaa", "image": volume}
    mount = {"name": "image-aaaaaaaaaaaa", "mountPath": "/mnt/images/aaaaaaaaaaaa", "readOnly": True}
    assert pod["containers"][0]["volumeMounts"][-1] == mount


@pytest.mark.parametrize(
    "settings", [settings_of(), settings_of(gateway="web/front"), settings_of(prometheus="http://p", gpus=0)]
)
def test_objects_are_valid_kubernetes(settings: Settings) -> None:
    known = [one for one in objects(settings) if one["kind"] in MODELS]
    assert len(known) >= 5
    for document in known:
        assert list(unknown(document, MODELS[document["kind"]].__name__)) == []


def test_unknown_fields_are_found() -> None:
    assert list(unknown({"spec": {"selektor": {}}}, "V1Deployment")) == ["spec.selektor"]


def unknown(value: Any, kind: str, path: str = "") -> Iterator[str]:
    """Yield unknown fields, by the types of the Kubernetes client."""
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        for number, item in enumerate(value):
            yield from unknown(item, inner[1], f"{path}[{number}]")
    elif inner := re.fullmatch(r"dict\(str, (.+)\)", kind) or re.fullmatch(r"dict\[str, (.+)\]", kind):
        for key, item in value.items():
            yield from unknown(item, inner[1], f"{path}.{key}")
    elif hasattr(client, kind):
        model = getattr(client, kind)
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        for key, item in value.items():
            field = f"{path}.{key}".lstrip(".")
            if key not in names:
                yield field
            else:
                yield from unknown(item, model.openapi_types[names[key]], field)


def clients(port: int = 5000, **changes: Any) -> list[str]:
    """Return the namespaces that the NetworkPolicy admits; "" is that of the service, "*" all."""
    policy = next(one for one in objects(settings_of(**changes)) if one["kind"] == "NetworkPolicy")
    (rule,) = [one for one in policy["spec"]["ingress"] if one["ports"] == [{"protocol": "TCP", "port": port}]]
    names = []
    for peer in rule["from"]:
        if "podSelector" in peer:
            assert peer == {"podSelector": {}}
            names.append("")
        else:
            labels = peer["namespaceSelector"].get("matchLabels", {"kubernetes.io/metadata.name": "*"})
            names.append(labels["kubernetes.io/metadata.name"])
    return names


def test_only_pods_of_the_namespace_reach_the_server() -> None:
    assert clients() == [""]
    assert clients(allowed_namespaces=["shop", "mail"]) == ["", "shop", "mail"]
    assert clients(allowed_namespaces=["shop", "*"]) == ["*"]
    assert clients(gateway="web/front", allowed_namespaces=["web"]) == ["", "web"]
    assert clients(prometheus="http://prometheus.monitoring:9090") == [""]


def test_prometheus_reaches_the_metrics_only() -> None:
    assert clients(5001, gateway="web/front", allowed_namespaces=["shop"]) == ["", "shop"]
    assert clients(5001, prometheus="http://prometheus.monitoring:9090") == ["", "monitoring"]
    assert clients(5001, prometheus="http://prometheus.monitoring.svc.cluster.local:9090") == ["", "monitoring"]
    assert clients(5001, prometheus="https://prometheus.example.com/query") == [""]
    template = {"spec": {"containers": [{"name": "own", "image": "own", "ports": [{"containerPort": 9000}]}]}}
    prometheus = "http://prometheus.monitoring:9090"
    assert clients(9000, prometheus=prometheus, template=template) == ["", "monitoring"]
    names = {
        port["name"] for kind in objects(settings_of()) if kind["kind"] == "Service" for port in kind["spec"]["ports"]
    }
    assert names == {"http"}, "no Service has the port of the metrics"


@pytest.mark.parametrize("name", ["Shop", "a b", "-a", "**", ""])
def test_an_invalid_namespace_is_rejected(name: str) -> None:
    with pytest.raises(ValidationError, match="the name of a namespace"):
        settings_of(allowed_namespaces=[name])


def test_rolling_update_keeps_all_servers() -> None:
    deployment = next(one for one in objects(settings_of(max_replicas=0)) if one["kind"] == "Deployment")
    spec = deployment["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["replicas"] == 2
    pod = spec["template"]["spec"]
    (server,) = pod["containers"]
    assert server["lifecycle"]["preStop"]["exec"]["command"] == ["python", "-m", "steps.serving.drain"]
    assert server["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert pod["terminationGracePeriodSeconds"] > 300
    scaled = next(one for one in objects(settings_of()) if one["kind"] == "Deployment")
    assert "replicas" not in scaled["spec"], "the autoscaler sets the replicas"


def test_vllm_flags_are_those_of_the_estimate_unless_the_user_sets_them() -> None:
    def arguments(settings: Settings) -> dict[str, Any]:
        args = rollout_cluster.build_release(settings).pod["spec"]["containers"][0]["args"]
        flags: dict[str, Any] = yaml.safe_load(args[args.index("--server-arguments") + 1])
        return flags

    assert arguments(settings_of()) == {"tensor-parallel-size": 2, "max-model-len": 8192, "max-num-seqs": 8}
    custom = {"max-model-len": 512, "tensor-parallel-size": 1}
    assert arguments(settings_of(server_arguments=custom)) == custom
    assert arguments(settings_of(gpus=1, context_length=0, server_arguments={})) == {}


def test_the_runtime_is_that_of_the_settings() -> None:
    """The transformers server gets no flags of vLLM that the step sets itself."""
    vllm, transformers = (
        rollout_cluster.build_release(settings_of(runtime=runtime)).pod["spec"]["containers"][0]["args"]
        for runtime in ("vllm", "transformers")
    )
    assert "--runtime" not in vllm
    assert transformers[transformers.index("--runtime") + 1] == "transformers"
    assert "tensor-parallel-size" in " ".join(vllm)
    assert "tensor-parallel-size" not in " ".join(transformers)
