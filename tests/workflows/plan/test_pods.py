"""Options of pods of the site profile: what is accepted, and how those of a step extend those of all pods."""

import pytest
from plan_samples import planned

from workflows.errors import InvalidInput
from workflows.plan.pods import PodOptions, for_pod, fragments

TOLERATION = {"key": "team", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}


def options(**fields) -> PodOptions:
    return PodOptions.model_validate(fields)


def test_options_come_from_the_site(tmp_path):
    plan = planned(tmp_path, "pods: {all: {priorityClassName: low}, tune: {resources: {requests: {cpu: 1}}}}\n")
    assert plan.pods["all"].priority_class_name == "low"
    assert plan.pods["tune"].resources.requests == {"cpu": "1"}
    assert plan.origin("pods") == "site profile"


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("pods: {tuna: {}}", "pods.tuna"),
        ("pods: {all: {nodeselector: {}}}", "pods.all.nodeselector: unknown field"),
        ("pods: {all: {env: {A: b}}}", "pods.all.env"),
        ("pods: {all: {env: [{name: 1A, value: b}]}}", "must be the name of an environment variable"),
        ("pods: {all: {env: [{name: HF_TOKEN, value: abc}]}}", "HF_TOKEN is or contains a secret; use valueFrom"),
        ("pods: {all: {env: [{name: HTTPS_PROXY, value: 'http://me:pw@proxy:1'}]}}", "HTTPS_PROXY is or cont"),
        ("pods: {all: {env: [{name: A, value: b, valueFrom: {secretKeyRef: {name: s, key: k}}}]}}", "one of value"),
        ("pods: {all: {env: [{name: A, valueFrom: {}}]}}", "one of secretKeyRef and configMapKeyRef"),
        ("pods: {all: {labels: {a b: c}}}", "is not a label Kubernetes allows"),
        ("pods: {all: {tolerations: [{effect: Never}]}}", "pods.all.tolerations.0..effect"),
        ("pods: {tune: {resources: {requests: {cpu: much}}}}", "must be a quantity such as 500m or 4Gi, not 'much'"),
        ("pods: {tune: {imagePullPolicy: Sometimes}}", "pods.tune.imagePullPolicy"),
        ("pods: {all: {caBundle: {name: corporate-ca}}}", "pods.all.caBundle.key"),
    ],
)  # fmt: skip
def test_invalid_options_are_rejected(tmp_path, profile, message):
    with pytest.raises(InvalidInput, match=message) as error:
        planned(tmp_path, profile + "\n")
    assert "pw" not in str(error.value)


def test_a_url_with_a_plain_query_is_no_secret(tmp_path):
    url = "https://minio.example.com/?region=eu&list-type=2"
    profile = f"pods: {{all: {{env: [{{name: AWS_ENDPOINT_URL, value: '{url}'}}]}}}}\n"
    assert planned(tmp_path, profile)
    with pytest.raises(InvalidInput, match="AWS_ENDPOINT_URL is or contains a secret"):
        planned(tmp_path, profile.replace("region=eu", "X-Amz-Signature=eu"))


def test_options_of_a_step_extend_those_of_all_pods():
    pods = {
        "all": options(
            env=[{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
            node_selector={"pool": "cpu", "zone": "1"},
            tolerations=[TOLERATION],
            resources={"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
            priority_class_name="low",
        ),
        "tune": options(
            env=[{"name": "B", "value": "2"}],
            node_selector={"pool": "gpu"},
            tolerations=[TOLERATION, {"operator": "Exists"}],
            resources={"requests": {"memory": "4Gi"}},
        ),
    }
    merged = for_pod(pods, "tune")
    assert {variable.name: variable.value for variable in merged.env} == {"A": "1", "B": "2"}
    assert merged.node_selector == {"pool": "gpu", "zone": "1"}
    assert [toleration.operator for toleration in merged.tolerations] == ["Equal", "Exists"]
    assert merged.resources.requests == {"cpu": "100m", "memory": "4Gi"}
    assert merged.resources.limits == {"memory": "1Gi"}
    assert merged.priority_class_name == "low"
    assert for_pod(pods, "report") == pods["all"]


def test_a_ca_bundle_is_mounted_and_named_in_the_environment():
    parts = fragments(options(ca_bundle={"name": "corporate-ca", "key": "ca.crt"}))
    assert {variable["value"] for variable in parts["container"]["env"]} == {"/mnt/ca-bundle/ca.crt"}
    assert parts["spec"]["volumes"] == [{"name": "ca-bundle", "configMap": {"name": "corporate-ca"}}]


def test_no_options_give_no_fragments():
    assert fragments(PodOptions()) == {}
