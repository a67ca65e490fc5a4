"""``argotune validate --cluster`` reports missing and invalid cluster objects, over real HTTP."""

import base64
import json

import pytest
import yaml

from workflows import cli

TUNE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: tuned
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector: {matchLabels: {app: tuned}}
tuning:
  preset:
    name: phi-4-mini-instruct
    presetOptions: {modelAccessSecret: hf-token}
  method: qlora
  input:
    image: data.example.com/team/rows:1.0
    imagePullSecrets: [pull]
  output:
    image: registry.example.com/team/adapter:1.0
    imagePushSecret: push
inference:
  preset:
    name: phi-4-mini-instruct
  adapters:
    - source: {name: polite, volumeSource: {persistentVolumeClaim: {claimName: polite}}}
pipeline:
  storage: {storageClassName: fast}
  tracking: {reportTo: mlflow, secret: my-mlflow}
  rollout: {apiKeysSecret: clients}
"""


def docker_secret(name, *registries):
    auths = {registry: {"auth": base64.b64encode(b"user:password").decode()} for registry in registries}
    content = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    return secret(name, "kubernetes.io/dockerconfigjson", {".dockerconfigjson": content})


def secret(name, kind, data):
    return {**resource("v1", "Secret", name), "type": kind, "data": data}


def resource(api_version, kind, name, namespace="argotune"):
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


EXISTING = {
    "push": docker_secret("push", "https://registry.example.com/v2/"),
    "pull": docker_secret("pull", "data.example.com", "other.example.com"),
    "hf-token": secret("hf-token", "Opaque", {"HF_TOKEN": base64.b64encode(b"hf_x").decode()}),
    "clients": secret("clients", "Opaque", {"alice": base64.b64encode(b"alice-0123456789\n").decode()}),
    "my-mlflow": secret("my-mlflow", "Opaque", {"MLFLOW_TRACKING_URI": base64.b64encode(b"https://m.x").decode()}),
    "models": resource("v1", "PersistentVolumeClaim", "argotune-models"),
    "polite": resource("v1", "PersistentVolumeClaim", "polite"),
    "fast": resource("storage.k8s.io/v1", "StorageClass", "fast", ""),
    "account": resource("v1", "ServiceAccount", "argotune"),
    "semaphores": {**resource("v1", "ConfigMap", "argotune-semaphores"), "data": {"gpu": "4"}},
}


@pytest.fixture
def cluster(cluster, monkeypatch):
    monkeypatch.delenv("KUBECONFIG")
    cluster.drop(resource("v1", "PersistentVolumeClaim", "argotune-models"))
    return cluster


@pytest.fixture
def validate(tmp_path, capsys):
    def run(text=TUNE, *flags):
        file = tmp_path / "workspace.yaml"
        file.write_text(text)
        cluster_flags = ["--cluster", "--kubeconfig", str(tmp_path / "kubeconfig"), *flags]
        code = cli.main(["validate", str(file), "-o", "json", *cluster_flags])
        [report] = json.loads(capsys.readouterr().out)["files"]
        assert (code == 2) is bool(report["problems"])
        return report

    return run


def put(cluster, **changed):
    for item in ({**EXISTING, **changed}).values():
        if item is not None:
            cluster.put(item)


def test_no_problem_if_all_objects_exist(cluster, validate):
    put(cluster)
    report = validate()
    assert report["problems"] == []
    assert {warning["path"] for warning in report["warnings"]} == {"resource.labelSelector"}
    assert {verb for verb, _, _ in cluster.verbs()} == {"get"}  # nothing is changed


def test_all_missing_objects_are_reported_with_their_lines(cluster, validate):
    problems = {problem["path"]: problem for problem in validate()["problems"]}
    assert {path: problem["line"] for path, problem in problems.items()} == {
        "tuning.output.imagePushSecret": 18,
        "tuning.input.imagePullSecrets": 15,
        "presetOptions.modelAccessSecret": 1,
        "pipeline.storage.storageClassName": 25,
        "pipeline.tracking.secret": 26,
        "pipeline.rollout.apiKeysSecret": 27,
        "storage.modelsClaim": 1,
        "inference.adapters (polite)": 19,
        "serviceAccount": 1,
        "semaphore.configMap": 1,
    }
    assert problems["tuning.output.imagePushSecret"]["message"] == "secret push not found in namespace argotune"
    assert problems["pipeline.storage.storageClassName"]["message"] == "storageclass fast not found"


WRONG = {
    "type": ({"push": secret("push", "Opaque", {})}, "has type Opaque, not kubernetes.io/dockerconfigjson"),
    "registry": (
        {"push": docker_secret("push", "elsewhere.example.com")},
        "Secret push has no credentials for registry.example.com, only for elsewhere.example.com",
    ),
    "no configuration": (
        {"push": secret("push", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": "bm90IGpzb24="})},
        "has no valid .dockerconfigjson",
    ),
    "no token": ({"hf-token": secret("hf-token", "Opaque", {"token": "eA=="})}, "Secret hf-token has no key HF_TOKEN"),
    "no address": (
        {"my-mlflow": secret("my-mlflow", "Opaque", {"MLFLOW_TRACKING_TOKEN": "eA=="})},
        "Secret my-mlflow has no key MLFLOW_TRACKING_URI",
    ),
    "no keys of clients": (
        {"clients": secret("clients", "Opaque", {})},
        "Secret clients has no entries",
    ),
    "a short key": (
        {"clients": secret("clients", "Opaque", {"alice": base64.b64encode(b"hunter2").decode()})},
        "entry alice of Secret clients is not an API key: it is shorter than 16 characters",
    ),
    "no slots": (
        {"semaphores": {**resource("v1", "ConfigMap", "argotune-semaphores"), "data": {"cpu": "4"}}},
        "ConfigMap argotune-semaphores has no key gpu",
    ),
    "no account": ({"account": None}, "serviceaccount argotune not found in namespace argotune"),
}


@pytest.mark.parametrize(("changed", "message"), WRONG.values(), ids=WRONG)
def test_invalid_objects_are_reported(cluster, validate, changed, message):
    put(cluster, **changed)
    [problem] = validate()["problems"]
    assert message in problem["message"]
    assert problem["fix"]
    assert "kubectl create" not in problem["fix"] or "--namespace argotune " in problem["fix"]
    assert "password" not in json.dumps(problem)


def test_several_secrets_need_the_registry_in_one_of_them(cluster, validate):
    put(cluster, more=docker_secret("more", "elsewhere.example.com"))
    several = TUNE.replace("[pull]", "[more, pull]")
    assert validate(several)["problems"] == []
    put(cluster, pull=docker_secret("pull", "other.example.com"))
    [problem] = validate(several)["problems"]
    names = "elsewhere.example.com, other.example.com"
    assert problem["message"] == f"Secrets more, pull have no credentials for data.example.com, only for {names}"
    put(cluster, more=secret("more", "Opaque", {}))
    [problem] = validate(several)["problems"]
    assert problem["message"].startswith("Secret more has type Opaque")


STORES = "  model: {repository: s3://models/phi, secret: weights}\n  data: {secret: rows}\n"
OWN_WEIGHTS = TUNE.replace("pipeline:\n", f"pipeline:\n{STORES}")


def test_secrets_of_object_stores_must_exist(cluster, validate):
    put(cluster)
    assert {problem["path"]: problem["message"] for problem in validate(OWN_WEIGHTS)["problems"]} == {
        "pipeline.model.secret": "secret weights not found in namespace argotune",
        "pipeline.data.secret": "secret rows not found in namespace argotune",
    }
    put(cluster, weights=secret("weights", "Opaque", {}), rows=secret("rows", "Opaque", {}))
    assert validate(OWN_WEIGHTS)["problems"] == []


IMAGE_OPTIONS = "presetOptions: {image: models.example.com/phi:1, imagePullSecrets: [weights]}"
OWN_IMAGE = TUNE.replace("presetOptions: {modelAccessSecret: hf-token}", IMAGE_OPTIONS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "secret weights not found in namespace argotune"),
        (docker_secret("weights", "elsewhere.example.com"), "has no credentials for models.example.com"),
        (docker_secret("weights", "models.example.com"), ""),
    ],
)
def test_the_secret_of_an_image_with_weights(cluster, validate, content, message):
    put(cluster, weights=content)
    problems = validate(OWN_IMAGE)["problems"]
    assert [problem["path"] for problem in problems] == (["presetOptions.imagePullSecrets"] if message else [])
    assert all(message in problem["message"] for problem in problems)


def test_without_a_storage_class_the_cluster_must_have_a_default(cluster, validate):
    put(cluster)
    text = TUNE.replace("  storage: {storageClassName: fast}\n", "")
    [problem] = validate(text)["problems"]
    assert problem["message"] == "the cluster has no default storage class (it has fast)"
    default = resource("storage.k8s.io/v1", "StorageClass", "usual", "")
    default["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    cluster.put(default)
    assert validate(text)["problems"] == []


def test_unreadable_objects_are_reported_as_unchecked(cluster, validate):
    put(cluster, push=None)
    cluster.forbidden = {("get", "secrets"), ("get", "storageclasses.storage.k8s.io"), ("get", "storageclasses")}
    report = validate()
    assert report["problems"] == []
    assert {warning["path"] for warning in report["warnings"]} == {
        "tuning.output.imagePushSecret",
        "tuning.input.imagePullSecrets",
        "presetOptions.modelAccessSecret",
        "pipeline.storage.storageClassName",
        "pipeline.tracking.secret",
        "pipeline.rollout.apiKeysSecret",
        "resource.labelSelector",
    }
    unchecked = [warning for warning in report["warnings"] if warning["path"] != "resource.labelSelector"]
    assert all("not checked" in warning["message"] for warning in unchecked)


def test_a_missing_namespace(cluster, validate):
    [problem] = validate(TUNE, "--namespace", "nowhere")["problems"]
    assert problem["message"] == "namespace nowhere not found"


def test_objects_of_volumes_are_checked(cluster, validate):
    put(cluster)
    volume = (
        "volumeSource: {projected: {sources: [{secret: {name: rows}}, {configMap: {name: more, optional: true}}]}}"
    )
    text = TUNE.replace("    image: data.example.com/team/rows:1.0\n    imagePullSecrets: [pull]\n", f"    {volume}\n")
    [problem] = validate(text)["problems"]
    assert (problem["path"], problem["message"]) == (
        "tuning.input.volumeSource",
        "secret rows not found in namespace argotune",
    )


def test_an_unreachable_cluster(cluster, tmp_path, monkeypatch, capsys):
    config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("time.sleep", lambda _: None)
    file = tmp_path / "workspace.yaml"
    file.write_text(TUNE)
    assert cli.main(["validate", str(file), "--cluster", "--kubeconfig", str(tmp_path / "kubeconfig")]) == 1
    shown = capsys.readouterr().err
    assert "http://127.0.0.1:9 (context tests): connection refused" in shown
    assert "Traceback" not in shown


def test_a_missing_kubeconfig(cluster, tmp_path, capsys):
    file = tmp_path / "workspace.yaml"
    file.write_text(TUNE)
    assert cli.main(["validate", str(file), "--cluster", "--kubeconfig", str(tmp_path / "none")]) == 2
    assert "kubeconfig not found" in capsys.readouterr().err
