"""The site's options in the pods of servers."""

import copy

from steps.kubernetes.pod_policy import GPU_TOLERATIONS
from steps.rollout import server_pod_options, service_pod
from steps.rollout.settings import Settings

OPTIONS = {
    "metadata": {"labels": {"cost-center": "42"}, "annotations": {"karpenter.sh/do-not-disrupt": "false"}},
    "spec": {
        "nodeSelector": {"pool": "gpu", "app": "other"},
        "tolerations": [{"key": "team", "operator": "Exists"}],
        "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [{"name": "ca-bundle", "configMap": {"name": "corporate-ca"}}],
    },
    "container": {
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "HF_HOME", "value": "/elsewhere"}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "8Gi"}},
        "imagePullPolicy": "Always",
        "volumeMounts": [{"name": "ca-bundle", "mountPath": "/mnt/ca-bundle", "readOnly": True}],
    },
}


def settings(**fields) -> Settings:
    given = {"work": "w", "model": "m", "name": "oncall", "serve_image": "serve:1", "node_labels": {"app": "oncall"}}
    return Settings(**given | fields)


def test_the_pod_of_a_server_is_extended():
    plain = service_pod.build_pod(settings(), {})
    pod = service_pod.build_pod(settings(pod_options=OPTIONS), {})
    spec, server = pod["spec"], pod["spec"]["containers"][0]
    assert spec["nodeSelector"] == {"pool": "gpu", "app": "oncall"}
    assert spec["tolerations"] == [*plain["spec"]["tolerations"], {"key": "team", "operator": "Exists"}]
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["volumes"][:-1] == plain["spec"]["volumes"]
    assert server["volumeMounts"][-1]["mountPath"] == "/mnt/ca-bundle"
    assert server["imagePullPolicy"] == "Always"
    assert server["resources"] == {
        "requests": {"cpu": "100m", "memory": "8Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
    }
    env = {variable["name"]: variable["value"] for variable in server["env"]}
    assert env["HTTPS_PROXY"] == "http://proxy:3128"
    assert env["HF_HOME"] == "/mnt/models/huggingface"
    assert pod["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert pod["metadata"]["labels"] == {"cost-center": "42"}


def test_without_options_the_pod_stays_as_it_is():
    pod = service_pod.build_pod(settings(), {})
    assert server_pod_options.apply({}, copy.deepcopy(pod)) == pod


def test_a_custom_pod_is_served_as_it_is():
    template = {"spec": {"containers": [{"name": "mine", "image": "mine:1"}]}}
    pod = service_pod.build_pod(settings(template=template, pod_options=OPTIONS), {})
    assert pod["spec"] == template["spec"] | {"nodeSelector": {"app": "oncall"}, "tolerations": GPU_TOLERATIONS}


def test_a_custom_pod_runs_on_the_requested_nodes() -> None:
    """As in KAITO: labels, instance types and tolerations are added to what the pod's author wrote."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    own_term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["1"]}]}
    own_affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [own_term, own_term]}
        },
        "podAntiAffinity": {},
    }
    own_toleration = {"key": "mine", "operator": "Exists"}
    template = {
        "spec": {
            "containers": [{"name": "mine", "image": "mine:1"}],
            "nodeSelector": {"pool": "mine"},
            "tolerations": [own_toleration],
            "affinity": own_affinity,
        }
    }
    chosen = settings(
        template=template,
        node_labels={"apps": "oncall", "pool": "theirs"},
        instance_types=["Standard_NC24ads_A100_v4"],
        preferred_nodes=["node-1"],
    )
    spec = service_pod.build_pod(chosen, {})["spec"]
    assert spec["nodeSelector"] == {"apps": "oncall", "pool": "mine"}
    assert spec["tolerations"] == [own_toleration, *GPU_TOLERATIONS]
    terms = spec["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    keys = [[expression["key"] for expression in term["matchExpressions"]] for term in terms]
    assert keys == [["zone", "node.kubernetes.io/instance-type"]] * 2
    assert spec["affinity"]["podAntiAffinity"] == {}
    assert spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert service_pod.build_pod(chosen, {})["spec"] == spec, "the template is not changed"
