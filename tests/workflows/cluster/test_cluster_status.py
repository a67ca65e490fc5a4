"""A Workflow document read into a run: columns, steps, root failure, verdict and exit code."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import timedelta

import pytest
from argo_run import MAIN, NAME, START, ArgoRun

from workflows.cluster import logs
from workflows.cluster.nodes import pod_name
from workflows.cluster.read_run import read_run
from workflows.runs import table

LATER = START + timedelta(minutes=50)


def columns(run: ArgoRun) -> tuple[str, ...]:
    return table.row(read_run(run.now()), LATER)[2:5]


def test_a_run_that_no_controller_has_seen_is_unknown():
    run = read_run(ArgoRun().now())
    assert table.row(run, LATER) == (NAME, "Standard_NC24ads_A100_v4", "Unknown", "Unknown", "Unknown", "50m")
    assert (run.phase, run.is_ended, run.exit_code) == ("Pending", False, 0)
    assert [step.key for step in run.steps] == [*MAIN, "onExit.release", "onExit.report"]


def test_waiting_for_a_lock_is_shown():
    waiting = "Waiting for argotune/Mutex/argotune-oncall lock. Lock status: 0/1"
    run = read_run(ArgoRun().phase("Pending", waiting).now())
    assert waiting in table.row(run, LATER, wide=True)[-1]
    assert not run.is_ended


def test_a_running_run_shows_its_progress():
    run = ArgoRun().at(1).step("provision", "Succeeded", exit_code=0).step("download", "Running")
    assert columns(run) == ("True", "Unknown", "Unknown")
    run.step("download", "Succeeded").at(5).step("tune", "Running", progress="12/48")
    status = read_run(run.now())
    assert (status.job_started, status.step("tune").progress) == ("True", (12, 48))
    wide = dict(zip(table.header(wide=True), table.row(status, LATER, wide=True), strict=True))
    assert (wide["STEP"], wide["PHASE"], wide["DURATION"], wide["WORKSPACE"]) == ("tune", "Running", "49m", "oncall")
    rows = {row[0]: row for row in table.step_rows(status, LATER)}
    assert rows["tune"] == ("tune", "Running", "45m", "", "12/48", "")
    assert rows["rollout"][1] == "-"


def test_a_succeeded_run_is_ready():
    run = ArgoRun().all_succeeded(evaluate={"verdict": "pass"}).phase("Succeeded")
    assert columns(run) == ("True", "True", "True")
    assert read_run(run.now()).exit_code == 0


def test_a_failed_gate_is_not_a_success():
    run = ArgoRun()
    for step in MAIN[:4]:
        failed = {"verdict": "fail", "reason": "minRougeL is 0.3, required >= 0.5"}
        run.step(step, "Succeeded", outputs=failed if step == "evaluate" else None)
    run.left_out("package").left_out("rollout", "Omitted").phase("Succeeded")
    assert columns(run) == ("True", "False", "False")
    status = read_run(run.now())
    assert status.exit_code == 3
    assert status.verdict == "the gate failed: minRougeL is 0.3, required >= 0.5; nothing was rolled out"


def test_an_approval_is_pending_and_can_be_rejected():
    steps = [*MAIN[:4], "approval", *MAIN[4:]]
    run = ArgoRun(steps).suspended()
    (step,) = read_run(run.now()).pending_approvals
    assert (step.key, step.parameters) == ("approval", {"approve": ["YES", "NO"]})
    run.suspended(answer="NO").left_out("package").left_out("rollout", "Omitted").phase("Succeeded")
    status = read_run(run.now())
    assert (status.exit_code, status.pending_approvals) == (3, [])
    assert "the answer was NO" in status.verdict


def test_an_unchanged_scheduled_run_is_ready_and_skips_the_rest():
    run = ArgoRun(["download", "check", "provision", "tune", "rollout"])
    run.step("download", "Succeeded").step("check", "Succeeded", outputs={"changed": "false"})
    run.left_out("provision").left_out("tune", "Omitted").left_out("rollout", "Omitted").phase("Succeeded")
    assert columns(run) == ("-", "-", "True")


def test_resources_are_not_ready_while_a_pod_waits_for_a_node():
    run = ArgoRun().step("provision", "Succeeded")
    run.at(2).step("tune", "Pending", message="Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    assert read_run(run.now()).resource_ready == "Unknown"
    run.at(3).step("tune", "Running")
    assert read_run(run.now()).resource_ready == "True"


def test_a_workspace_that_only_tunes_has_no_inference():
    run = ArgoRun(MAIN[:5]).all_succeeded().phase("Succeeded")
    assert columns(run) == ("True", "-", "True")


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (4, 4), (6, 6), (1, 1), (137, 1), (64, 1)])
def test_the_exit_code_is_that_of_the_failed_step(code, expected):
    run = ArgoRun().step("provision", "Succeeded")
    run.at(2).step("tune", "Failed", message=f"main: Error (exit code {code})", exit_code=code)
    run.left_out("evaluate", "Omitted").step("onExit.release", "Succeeded").phase("Failed", "child failed")
    status = read_run(run.now())
    assert status.exit_code == expected
    assert status.verdict == f"tune failed: main: Error (exit code {code})"
    assert (status.resource_ready, status.inference_ready, status.workspace_ready) == ("True", "False", "False")


def test_of_several_failures_the_first_is_the_cause():
    run = ArgoRun().at(3).step("download", "Failed", message="main: Error (exit code 2)", exit_code=2)
    run.at(1).step("provision", "Failed", message="main: Error (exit code 4)", exit_code=4)
    run.at(9).step("onExit.release", "Failed", message="main: Error (exit code 1)", exit_code=1).phase("Failed")
    status = read_run(run.now())
    assert (status.cause.key, status.exit_code) == ("provision", 4)


def test_a_failed_exit_handler_is_named_as_such():
    run = ArgoRun().all_succeeded().step("onExit.report", "Failed", message="main: Error (exit code 1)", exit_code=1)
    status = read_run(run.phase("Failed").now())
    assert status.verdict == "the exit handler: report failed: main: Error (exit code 1)"


CAUSE = "Error (exit code 2): max_length=64 truncates all rows\nfix: increase max_length"


@pytest.mark.parametrize(
    ("retry_message", "suffix"),
    [
        ("retryStrategy.expression evaluated to false", ""),
        ("No more retries left", ""),
        ("", ""),
        ("Backoff would exceed max duration limit", " (backoff would exceed its maxDuration)"),
    ],
)
def test_cause_is_the_message_of_the_last_attempt(retry_message, suffix):
    run = ArgoRun().step("tune", "Failed", message="Error (exit code 1): a moment's fault", exit_code=1)
    run.step("tune", "Failed", attempt=1, message=CAUSE, exit_code=2).phase("Failed", "child 'tune' failed")
    document = run.now()
    (retry,) = [node for node in document["status"]["nodes"].values() if node["type"] == "Retry"]
    retry["message"] = retry_message
    status = read_run(document)
    assert status.verdict == f"tune failed: max_length=64 truncates all rows{suffix}"
    assert (status.cause.fix, status.exit_code) == ("increase max_length", 2)
    assert [attempt.message for attempt in status.cause.attempts] == [
        "a moment's fault",
        "max_length=64 truncates all rows",
    ]
    assert status.cause.attempts[0].exit_code == 1


def test_a_failure_that_its_template_accepts_is_no_cause():
    run = ArgoRun(["provision", "pull", "tune"]).step("provision", "Succeeded", exit_code=0)
    run.step("pull.pull-image", "Failed", message="timeout").at(5).step("tune", "Failed", message=CAUSE, exit_code=2)
    document = run.phase("Failed").now()
    nodes = document["status"]["nodes"]
    around = {"id": "pull", "name": f"{NAME}.pull", "type": "DAG", "phase": "Succeeded", "templateName": "pull"}
    nodes["pull"] = around | {"boundaryID": NAME, "startedAt": document["metadata"]["creationTimestamp"]}
    for node in nodes.values():
        if "pull-image" in node["name"]:
            node["boundaryID"] = "pull"
    status = read_run(document)
    assert (status.cause.key, status.exit_code) == ("tune", 2)
    assert [(step.key, step.phase) for step in status.steps][:3] == [
        ("provision", "Succeeded"), ("pull", "Succeeded"), ("tune", "Failed"),
    ]  # fmt: skip
    nodes["pull"]["phase"] = "Failed"
    assert read_run(document).cause.key == "pull.pull-image"


def test_a_pod_that_is_not_scheduled_is_pending_with_its_reason():
    tune = read_run(ArgoRun().step("tune", "Pending", message="Unschedulable: no GPU").now()).step("tune")
    assert (tune.phase, tune.message) == ("Pending", "Unschedulable: no GPU")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('time=2026-11-28T22:13:01.1Z level=info msg="sub-process exited" argo=true error="exit status 2"', True),
        ("Error: exit status 2", True),
        ("error: no rows", False),
        ("time=1s level=info loss=2", False),
    ],
)
def test_lines_of_the_executor_are_recognized(line, expected):
    assert logs._is_from_executor(line) is expected


def test_stop_precedes_the_message_of_the_last_attempt():
    run = ArgoRun().step("tune", "Failed", message=CAUSE, exit_code=2).phase("Failed")
    document = run.now()
    (retry,) = [node for node in document["status"]["nodes"].values() if node["type"] == "Retry"]
    retry["message"] = "Stopped with strategy 'Stop'"
    assert read_run(document).step("tune").message == "Stopped with strategy 'Stop'"


def test_a_step_has_its_attempts_and_the_state_of_the_last():
    run = ArgoRun().step("tune", "Failed", message="OOMKilled (exit code 137)", exit_code=137)
    run.step("tune", "Running", attempt=1, progress="3/48")
    tune = read_run(run.now()).step("tune")
    assert [(pod.pod, pod.phase, pod.exit_code) for pod in tune.attempts] == [
        (run.pod("tune", 0), "Failed", 137),
        (run.pod("tune", 1), "Running", None),
    ]
    assert (tune.phase, tune.progress) == ("Running", (3, 48))


def test_exit_codes_of_stops_and_time_limits():
    run = ArgoRun().step("tune", "Failed", message="workflow shutdown with strategy:  Stop")
    run.document["spec"]["shutdown"] = "Stop"
    status = read_run(run.phase("Failed", "Stopped with strategy 'Stop'").now())
    assert (status.exit_code, status.verdict, status.cause) == (5, "the run was stopped", None)
    late = ArgoRun().step("tune", "Failed", message="Step exceeded its deadline").phase("Failed")
    late.document["spec"]["activeDeadlineSeconds"] = 3600
    assert read_run(late.now()).exit_code == 6


def test_compressed_and_offloaded_nodes():
    run = ArgoRun().step("provision", "Succeeded").now()
    nodes = run["status"].pop("nodes")
    packed = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    run["status"]["compressedNodes"] = packed
    assert read_run(run).resource_ready == "True"
    run["status"]["compressedNodes"] = base64.b64encode(b"(\xb5/\xfd of zstd").decode()
    assert "ARGO_SERVER" in read_run(run).message
    del run["status"]["compressedNodes"]
    run["status"]["offloadNodeStatusVersion"] = "fnv:1"
    assert "Argo's database" in read_run(run).message


def test_pods_have_the_names_that_argo_gives():
    workflow = {"metadata": {"name": "retry-backoff-s69z6"}}
    # Ids of Argo's own test (workflow/controller/operator_test.go).
    node = {"id": "retry-backoff-s69z6-1807967148", "name": "retry-backoff-s69z6(0)", "templateName": "retry-backoff"}
    assert pod_name(workflow, node) == "retry-backoff-s69z6-retry-backoff-1807967148"
    old = {"metadata": {"name": "x", "annotations": {"workflows.argoproj.io/pod-name-format": "v1"}}}
    assert pod_name(old, node) == node["id"]
    assert pod_name({"metadata": {"name": "hello"}}, {"id": "hello", "name": "hello"}) == "hello"


def test_a_run_of_a_template_is_read_from_its_stored_spec():
    run = ArgoRun().step("provision", "Succeeded").now()
    run["status"]["storedWorkflowTemplateSpec"] = run["spec"]
    run["spec"] = {"workflowTemplateRef": {"name": "oncall"}}
    assert table.row(read_run(run), LATER)[1:3] == ("Standard_NC24ads_A100_v4", "True")


def test_a_foreign_workflow():
    foreign = ArgoRun(document={"metadata": {"name": "x"}, "spec": {"entrypoint": "hello", "templates": []}}, name="x")
    run = foreign.now() | {
        "status": {
            "phase": "Failed",
            "nodes": {
                "x": {"id": "x", "name": "x", "type": "Pod", "phase": "Failed", "message": "Error (exit code 2)"}
            },
        }
    }
    status = read_run(run)
    assert table.row(status, LATER)[1:5] == ("-", "-", "-", "False")
    assert [(step.key, [pod.pod for pod in step.attempts]) for step in status.steps] == [("hello", ["x"])]
    assert status.exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5, "5s"), (119, "119s"), (120, "2m"), (215, "3m35s"), (3600, "60m"), (3 * 3600 + 60, "3h1m"), (9 * 3600, "9h"),
     (3 * 86400 + 3600, "3d1h"), (30 * 86400, "30d"), (800 * 86400, "2y"), (-3, "0s")],
)  # fmt: skip
def test_ages_are_formatted_as_in_kubectl(seconds, shown):
    assert table.format_duration(timedelta(seconds=seconds)) == shown


def test_output_formats():
    run = ArgoRun().all_succeeded(rollout={"endpoint": "http://oncall"}).phase("Succeeded")
    data = json.loads(table.format_runs([read_run(run.now())], "json"))[0]
    assert (data["resourceReady"], data["exitCode"], data["phase"]) == ("True", 0, "Succeeded")
    assert {step["name"]: step["outputs"] for step in data["steps"]}["rollout"] == {"endpoint": "http://oncall"}
    assert table.format_runs([read_run(run.now())], "name") == f"{NAME}\n"
    assert "workspaceReady: 'True'" in table.format_runs([read_run(run.now())], "yaml")
