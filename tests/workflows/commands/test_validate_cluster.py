"""``argotune validate --cluster``: what a Workspace names and a cluster has not is told, over real HTTP."""

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
"""


def docker_secret(name, *registries):
    auths = {registry: {"auth": base64.b64encode(b"user:password").decode()} for registry in registries}
    content = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    return secret(name, "kubernetes.io/dockerconfigjson", {".dockerconfigjson": content})


def secret(name, kind, data):
    return {**thing("v1", "Secret", name), "type": kind, "data": data}


def thing(api_version, kind, name, namespace="argotune"):
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


THERE = {
    "push": docker_secret("push", "https://registry.example.com/v2/"),
    "pull": docker_secret("pull", "data.example.com", "other.example.com"),
    "hf-token": secret("hf-token", "Opaque", {"HF_TOKEN": base64.b64encode(b"hf_x").decode()}),
    "my-mlflow": secret("my-mlflow", "Opaque", {"MLFLOW_TRACKING_URI": base64.b64encode(b"https://m.x").decode()}),
    "models": thing("v1", "PersistentVolumeClaim", "argotune-models"),
    "polite": thing("v1", "PersistentVolumeClaim", "polite"),
    "fast": thing("storage.k8s.io/v1", "StorageClass", "fast", ""),
    "account": thing("v1", "ServiceAccount", "argotune"),
    "semaphores": {**thing("v1", "ConfigMap", "argotune-semaphores"), "data": {"gpu": "4"}},
}


@pytest.fixture
def cluster(cluster, monkeypatch):
    monkeypatch.delenv("KUBECONFIG")
    return cluster


@pytest.fixture
def validate(tmp_path, capsys):
    def run(text=TUNE, *flags):
        file = tmp_path / "workspace.yaml"
        file.write_text(text)
        given = ["--cluster", "--kubeconfig", str(tmp_path / "kubeconfig"), *flags]
        code = cli.main(["validate", str(file), "-o", "json", *given])
        [report] = json.loads(capsys.readouterr().out)["files"]
        assert (code == 2) is bool(report["problems"])
        return report

    return run


def put(cluster, **changed):
    for found in ({**THERE, **changed}).values():
        if found is not None:
            cluster.put(found)


def test_where_all_is_there_nothing_is_told(cluster, validate):
    put(cluster)
    report = validate()
    assert (report["problems"], report["warnings"]) == ([], [])
    assert {verb for verb, _, _ in cluster.verbs()} == {"get"}  # nothing is changed there


def test_everything_missing_is_told_at_once_with_its_line(cluster, validate):
    told = {problem["path"]: problem for problem in validate()["problems"]}
    assert {path: problem["line"] for path, problem in told.items()} == {
        "tuning.output.imagePushSecret": 18,
        "tuning.input.imagePullSecrets": 15,
        "presetOptions.modelAccessSecret": 1,
        "pipeline.storage.storageClassName": 25,
        "pipeline.tracking.secret": 26,
        "storage.modelsClaim": 1,
        "inference.adapters (polite)": 19,
        "serviceAccount": 1,
        "semaphore.configMap": 1,
    }
    assert told["tuning.output.imagePushSecret"]["message"] == "there is no secret push in namespace argotune"
    assert told["pipeline.storage.storageClassName"]["message"] == "there is no storageclass fast"


WRONG = {
    "type": ({"push": secret("push", "Opaque", {})}, "is of type Opaque, not kubernetes.io/dockerconfigjson"),
    "registry": (
        {"push": docker_secret("push", "elsewhere.example.com")},
        "Secret push has no credentials for registry.example.com, only for elsewhere.example.com",
    ),
    "no configuration": (
        {"push": secret("push", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": "bm90IGpzb24="})},
        "holds no .dockerconfigjson that is a docker configuration",
    ),
    "no token": ({"hf-token": secret("hf-token", "Opaque", {"token": "eA=="})}, "Secret hf-token has no key HF_TOKEN"),
    "no address": (
        {"my-mlflow": secret("my-mlflow", "Opaque", {"MLFLOW_TRACKING_TOKEN": "eA=="})},
        "Secret my-mlflow has no key MLFLOW_TRACKING_URI",
    ),
    "no slots": (
        {"semaphores": {**thing("v1", "ConfigMap", "argotune-semaphores"), "data": {"cpu": "4"}}},
        "ConfigMap argotune-semaphores has no key gpu",
    ),
    "no account": ({"account": None}, "there is no serviceaccount argotune in namespace argotune"),
}


@pytest.mark.parametrize(("changed", "words"), WRONG.values(), ids=WRONG)
def test_what_is_there_but_wrong_is_told(cluster, validate, changed, words):
    put(cluster, **changed)
    [problem] = validate()["problems"]
    assert words in problem["message"]
    assert problem["fix"]
    assert "password" not in json.dumps(problem)


def test_without_a_storage_class_the_cluster_must_have_a_default(cluster, validate):
    put(cluster)
    text = TUNE.replace("  storage: {storageClassName: fast}\n", "")
    [problem] = validate(text)["problems"]
    assert problem["message"] == "the cluster has no default storage class (it has fast)"
    default = thing("storage.k8s.io/v1", "StorageClass", "usual", "")
    default["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    cluster.put(default)
    assert validate(text)["problems"] == []


def test_what_may_not_be_read_is_told_and_not_taken_for_missing(cluster, validate):
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
    }
    assert all("not checked" in warning["message"] for warning in report["warnings"])


def test_a_namespace_that_is_not_there(cluster, validate):
    [problem] = validate(TUNE, "--namespace", "nowhere")["problems"]
    assert problem["message"] == "there is no namespace nowhere"


def test_volumes_name_what_must_be_there(cluster, validate):
    put(cluster)
    volume = (
        "volumeSource: {projected: {sources: [{secret: {name: rows}}, {configMap: {name: more, optional: true}}]}}"
    )
    text = TUNE.replace("    image: data.example.com/team/rows:1.0\n    imagePullSecrets: [pull]\n", f"    {volume}\n")
    [problem] = validate(text)["problems"]
    assert (problem["path"], problem["message"]) == (
        "tuning.input.volumeSource",
        "there is no secret rows in namespace argotune",
    )


def test_a_cluster_that_does_not_answer(cluster, tmp_path, monkeypatch, capsys):
    config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("time.sleep", lambda _: None)
    file = tmp_path / "workspace.yaml"
    file.write_text(TUNE)
    assert cli.main(["validate", str(file), "--cluster", "--kubeconfig", str(tmp_path / "kubeconfig")]) == 1
    shown = capsys.readouterr().err
    assert "nothing listens at http://127.0.0.1:9" in shown
    assert "Traceback" not in shown


def test_without_a_kubeconfig_it_is_told_how_to_get_one(cluster, tmp_path, capsys):
    file = tmp_path / "workspace.yaml"
    file.write_text(TUNE)
    assert cli.main(["validate", str(file), "--cluster", "--kubeconfig", str(tmp_path / "none")]) == 2
    assert "there is no kubeconfig" in capsys.readouterr().err
