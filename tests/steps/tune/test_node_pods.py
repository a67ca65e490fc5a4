"""The step creates, watches and deletes the pods of the other nodes; a fake cluster and real launchers of ranks."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import light_worker
import pytest
from job_controller import NAMESPACE, JobController
from kubernetes_server import KubernetesServer, condition

from steps.kubernetes import client as kubernetes_client
from steps.runtime.errors import BadInput, GateFailed, InsufficientCapacity, StepError, TimeLimit, TransientError
from steps.tune import first_node, launcher, node_job, node_pods
from steps.tune.first_node import FirstNode
from steps.tune.layout import Layout, NodeLost, NodeOutOfMemory, NodesUnavailable, from_environment
from steps.tune.node_pods import NodePods
from steps.tune.settings import Settings

LAYOUT = Layout(2, 3, 0, "10.0.0.7", 4000)
NODE = "worker-of-argo"
VOLUMES = {
    "work": {"persistentVolumeClaim": {"claimName": "oncall-work"}},
    "models": {"persistentVolumeClaim": {"claimName": "argotune-models"}},
    "scratch": {"emptyDir": {}},
    "var-run-argo": {"emptyDir": {}},
    "kube-api-access-x": {"projected": {}},
}
MOUNTS = {
    "work": "/mnt/work",
    "models": "/mnt/models",
    "scratch": "/mnt/scratch",
    "var-run-argo": "/var/run/argo",
    "kube-api-access-x": "/var/run/secrets/kubernetes.io/serviceaccount",
}
TOKEN = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}}


def own_pod(name: str = NODE) -> dict[str, Any]:
    """A pod as Argo 4.1 creates it, after admission."""
    main = {
        "name": "main",
        "image": "ghcr.io/argotune/tune:1",
        "command": ["/var/run/argo/argoexec", "emissary", "--", "python", "-m", "steps.tune"],
        "args": ["--nodes", "3"],
        "env": [{"name": "ARGO_TEMPLATE", "value": "{}"}, {"name": "ARGOTUNE_OUTPUTS", "value": "/x"}, TOKEN],
        "resources": {"limits": {"nvidia.com/gpu": "2"}},
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in MOUNTS.items()],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": "pod-uid",
            "labels": {"workflows.argoproj.io/workflow": "oncall", "argotune.dev/tune": "first", "team": "sre"},
            "annotations": {"workflows.argoproj.io/node-id": "x", "karpenter.sh/do-not-disrupt": "true"},
            "ownerReferences": [{"kind": "Workflow", "name": "oncall", "uid": "workflow-uid"}],
        },
        "spec": {
            "nodeName": "gpu-1",
            "nodeSelector": {"argotune.dev/run": "workflow-uid"},
            "tolerations": [{"key": "sku", "operator": "Exists"}],
            "serviceAccountName": "argotune-tune",
            "initContainers": [{"name": "init"}],
            "containers": [{"name": "wait"}, main],
            "volumes": [{"name": name, **volume} for name, volume in VOLUMES.items()],
        },
    }


@pytest.fixture(params=["Job", "JobSet"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each test runs on a cluster without JobSet, and with it."""
    return str(request.param)


@pytest.fixture
def jobs(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, kind: str) -> JobController:
    if kind == "Job":
        cluster.without("jobset.x-k8s.io")
    connect = kubernetes_client.connect
    monkeypatch.setattr(kubernetes_client, "connect", lambda: connect(lambda seconds: None))
    monkeypatch.setattr(socket, "gethostname", lambda: NODE)
    monkeypatch.setattr(node_pods, "POLL_SECONDS", 0.0)
    cluster.put(own_pod())
    return JobController(cluster)


def pods_of(work: Path = Path("/mnt/work"), **settings: Any) -> NodePods:
    return NodePods(Settings(work=work, nodes=3, model="m", **settings), LAYOUT)


def error_of(pods: NodePods) -> Any:
    failure = pods.failure()
    assert failure
    return failure.error


def test_pods_are_copies_of_the_first_without_its_volumes(jobs: JobController, kind: str) -> None:
    pods_of(max_length=99, lora_config={"use_dora": True}).start(LAYOUT, 2)
    (job,) = jobs.created
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["backoffLimit"] == 0
    (group,) = jobs.groups()
    assert group["kind"] == kind
    assert group["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": NODE, "uid": "pod-uid"}
    ]
    template = job["spec"]["template"]
    assert "workflows.argoproj.io" not in str(template["metadata"])
    assert template["metadata"]["labels"]["team"] == "sre"
    annotations = template["metadata"]["annotations"].items()
    assert [item for item in annotations if "jobset" not in item[0]] == [("karpenter.sh/do-not-disrupt", "true")]
    spec = template["spec"]
    assert spec["nodeSelector"] == {"argotune.dev/run": "workflow-uid"} and "nodeName" not in spec
    assert spec["restartPolicy"] == "Never" and spec["automountServiceAccountToken"] is False
    directories = [{"name": name, "emptyDir": {}} for name in ("work", "models", "scratch")]
    assert spec["volumes"] == directories
    (container,) = spec["containers"]
    assert container["command"] == ["python", "-m", "steps.tune"]
    assert {"--processes=2", "--nodes=3", "--max-length=99", '--lora-config={"use_dora": true}'} < {*container["args"]}
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["HF_TOKEN"] == TOKEN
    assert not {"ARGO_TEMPLATE", "ARGOTUNE_OUTPUTS"} & variables.keys()
    environment = {name: variable.get("value", "") for name, variable in variables.items()}
    joined = from_environment(2, 3, environment | {"JOB_COMPLETION_INDEX": "1"})
    assert joined == Layout(2, 3, 2, "10.0.0.7", 4000) and list(joined.ranks) == [4, 5]
    assert environment["ARGOTUNE_OOM_RETRIES"] == "2"


def test_a_claim_for_many_nodes_is_mounted_by_all(cluster: KubernetesServer, jobs: JobController) -> None:
    for name in ("argotune-models", "oncall-work"):
        metadata = {"name": name, "namespace": NAMESPACE}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
        cluster.put({**claim, "spec": {"accessModes": ["ReadWriteMany"]}})
    pods_of().start(LAYOUT, 0)
    volumes = {volume["name"]: volume for volume in jobs.created[0]["spec"]["template"]["spec"]["volumes"]}
    assert "persistentVolumeClaim" in volumes["models"]
    # Only the first node writes results.
    assert "emptyDir" in volumes["work"]


def test_a_retry_deletes_what_the_lost_attempt_has_left(cluster: KubernetesServer, jobs: JobController) -> None:
    pods_of().start(LAYOUT, 0)
    other = pods_of(Path("/mnt/work/candidates/a"))
    other.start(LAYOUT, 0)
    again = pods_of()
    again.start(LAYOUT, 0)
    assert len(jobs.created) == 3
    assert {group["metadata"]["name"] for group in jobs.groups()} == {again.job, other.job}
    again.stop()
    assert [group["metadata"]["name"] for group in jobs.groups()] == [other.job]
    other.stop()
    assert not jobs.groups() and not cluster.all("jobs") and not jobs.pods()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, StepError),
        (2, BadInput),
        (3, GateFailed),
        (4, InsufficientCapacity),
        (6, TimeLimit),
        (40, None),
        (41, NodeLost),
        (137, NodeLost),
        (143, NodeLost),
        (255, StepError),
    ],
)
def test_exit_codes_of_pods_are_errors_of_the_step(jobs: JobController, code: int, kind: Any) -> None:
    pods = pods_of()
    pods.start(LAYOUT, 0)
    assert pods.failure() is None
    jobs.end_pod(code, "the base model is broken\nfix: fetch it again")
    error = error_of(pods)
    assert type(error) is (kind or type(None))
    if code == 2:
        assert error.message.endswith(": the base model is broken") and error.fix == "fetch it again"


def test_causes_precede_consequences(jobs: JobController) -> None:
    pods = pods_of()
    pods.start(LAYOUT, 0)
    jobs.end_pod(41)
    failure = pods.failure()
    assert failure and not failure.is_root_cause
    jobs.cluster.put({**jobs.pods()[1], "status": {"phase": "Failed", "reason": "Evicted", "message": "low on disk"}})
    assert "was lost: low on disk" in error_of(pods).message
    jobs.end_pod(137, reason="OOMKilled")
    assert isinstance(error_of(pods), InsufficientCapacity)


def test_a_drained_pod_has_time_to_save_a_checkpoint() -> None:
    for deadline, is_lost in (("2999-01-01T00:00:00Z", False), ("2020-01-01T00:00:00Z", True)):
        pod = {"metadata": {"name": "x", "deletionTimestamp": deadline}, "status": {"phase": "Running"}}
        assert (node_pods._pod_failure(pod) is not None) == is_lost


def test_deleted_pods_and_jobs_are_lost_nodes(cluster: KubernetesServer, jobs: JobController) -> None:
    pods = pods_of()
    pods.start(LAYOUT, 0)
    (group,) = jobs.groups()
    for pod in jobs.pods():
        cluster.drop(pod)
    cluster.put({**group, "status": {"conditions": [condition("Failed", reason="BackoffLimitExceeded")]}})
    assert isinstance(error_of(pods), NodeLost)
    cluster.drop(group)
    assert isinstance(error_of(pods), NodeLost)


def test_pods_that_cannot_start_end_the_step(
    cluster: KubernetesServer, jobs: JobController, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.phase = "Pending"
    pods = pods_of()
    pods.start(LAYOUT, 0)
    unschedulable = condition("PodScheduled", "False", "Unschedulable", "0/3 nodes have 2 free GPUs")
    jobs.set_status({"phase": "Pending", "conditions": [unschedulable]})
    assert pods.failure() is None
    monkeypatch.setattr(node_pods, "START_TIMEOUT_SECONDS", 0.0)
    error = error_of(pods)
    assert isinstance(error, NodesUnavailable) and "0/3 nodes have 2 free GPUs" in error.message
    pods.have_run = True  # before a restart: a lost node has no replacement yet
    error = error_of(pods)
    assert isinstance(error, NodeLost) and "0/3 nodes have 2 free GPUs" in error.message
    waiting = {"reason": "InvalidImageName", "message": "x y"}
    jobs.set_status({"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": waiting}}]})
    error = error_of(pods)
    assert "cannot start: InvalidImageName: x y" in error.message
    assert error.fix.startswith("see kubectl describe pod ") and error.fix.endswith(" --namespace argotune")


def test_an_unavailable_api_server_does_not_end_a_training(
    cluster: KubernetesServer, jobs: JobController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a permission that an update takes away for a moment."""
    pods = pods_of()
    pods.start(LAYOUT, 0)
    cluster.forbidden.add(("list", "pods"))
    assert pods.failure() is None

    def fail(*_: Any, **__: Any) -> Any:
        raise TransientError("connection refused")

    monkeypatch.setattr(pods.polls, "list", fail)
    assert pods.failure() is None


def test_a_poll_waits_for_no_retry(
    cluster: KubernetesServer, jobs: JobController, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Meanwhile a rank of this pod can fail."""
    waits: list[float] = []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    pods = pods_of()
    pods.polls._sleep = waits.append
    pods.start(LAYOUT, 0)
    capsys.readouterr()
    for _ in range(2):
        cluster.faults.fail("500", 1)
        assert pods.failure() is None and cluster.faults.happened and not pods.are_running
    assert capsys.readouterr().out.count("warning: ") == 1
    assert pods.failure() is None and pods.are_running and not waits


def test_a_pod_is_found_by_the_beginning_of_a_long_name(
    cluster: KubernetesServer, jobs: JobController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostname has at most 63 characters."""
    name = f"{'search-' * 8}trial-tune-1234567890"
    monkeypatch.setattr(socket, "gethostname", lambda: name[:63])
    cluster.put(own_pod(name))
    assert pods_of().own["metadata"]["name"] == name


def test_a_lost_response_to_the_creation_is_no_failure(
    cluster: KubernetesServer, jobs: JobController, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = pods_of()
    create = pods.cluster.create

    def create_twice(*arguments: Any) -> Any:
        create(*arguments)
        return create(*arguments)

    monkeypatch.setattr(pods.cluster, "create", create_twice)
    pods.start(LAYOUT, 0)
    assert [group["metadata"]["name"] for group in jobs.groups()] == [pods.job]


def test_a_text_that_no_argument_can_hold_is_rejected() -> None:
    settings = Settings(work=Path("/w"), **{"model_config": {"chat_template": "x" * 200_000}})
    with pytest.raises(BadInput, match="too long for the pods of several nodes"):
        node_job.arguments(settings)


class Nodes:
    """Other nodes that fail as a test says."""

    def __init__(self, *failures: launcher.Failure | None) -> None:
        self.failures, self.attempts, self.stops = list(failures), list[int](), 0

    def start(self, layout: Layout, oom_retries: int) -> None:
        assert layout.port
        self.attempts.append(oom_retries)

    def failure(self) -> launcher.Failure | None:
        return self.failures[len(self.attempts) - 1]

    def stop(self) -> None:
        self.stops += 1


def run(work: Path, monkeypatch: pytest.MonkeyPatch, nodes: Nodes, action: str, restarts: int = 2) -> Any:
    directory = str(Path(light_worker.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [directory, os.environ.get("PYTHONPATH", "")])))
    monkeypatch.setattr(launcher, "OTHER_NODES_TIMEOUT_SECONDS", 0.1)
    settings = light_worker.Settings(work=work, actions=[action])
    layout = Layout(1, 1, 0)  # light ranks do not connect to each other
    monkeypatch.setattr(Layout, "with_free_port", lambda self: Layout(1, 1, 0, port=1))
    return launcher.run("light_worker", settings, layout, light_worker.Result, nodes, restarts=restarts)


LOST = launcher.Failure(NodeLost("pod x was lost"))


def test_a_lost_node_restarts_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(LOST, launcher.Failure(None), None)
    result = run(tmp_path, monkeypatch, nodes, "return")
    assert nodes.attempts == [0, 0, 1] and nodes.stops == 3
    assert result.oom_retries == 1


def test_a_second_sigterm_waits_for_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    nodes = Nodes(None)
    monkeypatch.setattr(nodes, "stop", lambda: os.kill(os.getpid(), signal.SIGTERM))
    previous = signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    try:
        run(tmp_path, monkeypatch, nodes, "return")
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert not ended


def test_restarts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(LOST, LOST, LOST)
    with pytest.raises(StepError, match="pod x was lost") as caught:
        run(tmp_path, monkeypatch, nodes, "wait")
    assert caught.value.exit_code == 1 and len(nodes.attempts) == nodes.stops == 3


def test_an_error_of_another_node_is_that_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(launcher.Failure(BadInput("no such model", "write another")))
    with pytest.raises(BadInput, match="no such model"):
        run(tmp_path, monkeypatch, nodes, "wait")
    assert nodes.stops == 1


def test_a_lost_connection_without_a_cause_restarts_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(None)
    with pytest.raises(StepError, match="the connection to another node was lost"):
        run(tmp_path, monkeypatch, nodes, "lose connection", restarts=0)


def test_other_nodes_leave_the_decision_to_the_first(tmp_path: Path) -> None:
    other = Layout(1, 2, 1)
    lost = launcher.Failure(StepError("unexpected RuntimeError"), is_root_cause=False)
    assert isinstance(launcher._error(lost, other, has_other_nodes=True), NodeLost)
    assert isinstance(launcher._error(launcher.Failure(None), other, has_other_nodes=True), NodeOutOfMemory)
    bad = launcher.Failure(BadInput("x"))
    assert launcher._error(bad, other, has_other_nodes=True) is bad.error


def test_other_nodes_end_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_node, "INTERVAL_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        node = FirstNode(Layout(1, 2, 1, "127.0.0.1", server.getsockname()[1]))
        assert node.failure() is None
    failures = [node.failure() for _ in range(first_node.MAX_FAILURES)]
    assert failures[:-1] == [None] * 3
    assert failures[-1] and isinstance(failures[-1].error, NodeLost)


def test_a_pod_without_permission_names_the_role(cluster: KubernetesServer, jobs: JobController, kind: str) -> None:
    plural = f"{kind.lower()}s"
    cluster.forbidden.add(("create", plural))
    with pytest.raises(BadInput, match=f"cannot create {plural}"):
        pods_of(job_kind=kind.lower()).start(LAYOUT, 0)
    assert not jobs.created
