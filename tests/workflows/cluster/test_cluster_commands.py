"""``argotune submit, status, ls, logs, approve`` and ``stop --cluster`` against a cluster's API over real HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from argo_run import MAIN, NAME, ArgoRun

from workflows.cli import main

ROOT = Path(__file__).parents[3]
EXAMPLE = str(ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml")
RETRAINING = str(ROOT / "examples" / "smollm2_135m_retraining.yaml")
COMPILED = str(ROOT / "argo" / "smollm2_135m_qlora_parquet.yaml")
APPROVED = [*MAIN[:4], "approval", *MAIN[4:]]


def add_pod(cluster, run: ArgoRun, task: str, text: str, attempt: int = 0) -> None:
    name = run.pod(task, attempt)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "argotune"}}
    cluster.put(pod | {"spec": {"containers": [{"name": "main", "image": "x"}]}})
    lines = [f"2026-08-21T10:{n // 60:02}:{n % 60:02}.000000001Z {line}\n" for n, line in enumerate(text.splitlines())]
    cluster.logs["argotune", name, "main"] = "".join(lines)


def test_a_workspace_is_submitted_once(cluster, capsys):
    assert main(["submit", EXAMPLE, "-p", "epochs=1"]) == 0
    (created,) = cluster.all("workflows")
    shown = capsys.readouterr()
    assert shown.out == f"Workflow {created['metadata']['name']} created in namespace argotune\n"
    assert f"argotune status {created['metadata']['name']} --watch -n argotune" in shown.err
    assert re.fullmatch(r"oncall-[a-z0-9]{5}", created["metadata"]["name"])
    parameters = {item["name"]: item["value"] for item in created["spec"]["arguments"]["parameters"]}
    assert parameters["epochs"] == "1"
    assert created["metadata"]["labels"]["argotune.dev/workspace"] == "oncall"


def test_compiled_documents_are_submitted_unchanged(cluster, capsys):
    assert main(["submit", COMPILED, "-o", "name"]) == 0
    (created,) = cluster.all("workflows")
    assert capsys.readouterr().out == f"{created['metadata']['name']}\n"
    assert created["spec"] == yaml.safe_load(Path(COMPILED).read_text())["spec"]
    assert main(["submit", COMPILED, "--set", "tuning.epochs=1"]) == 2
    assert "cannot be combined with a compiled document" in capsys.readouterr().err


def test_standard_input_can_be_either(cluster, argotune):
    for file in (EXAMPLE, COMPILED):
        done = argotune("submit", "-", "-o", "name", text=Path(file).read_text())
        assert done.stdout.startswith("oncall-"), done.stderr
    assert len(cluster.all("workflows")) == 2


def test_templates_and_schedules_are_created_by_name_once(cluster, capsys):
    assert main(["submit", RETRAINING, "--as", "cron"]) == 0
    assert main(["submit", RETRAINING, "--as", "template"]) == 0
    assert main(["submit", RETRAINING, "--as", "cluster-template"]) == 0
    kinds = ("cronworkflows", "workflowtemplates", "clusterworkflowtemplates")
    assert [len(cluster.all(kind)) for kind in kinds] == [1, 1, 1]
    assert main(["submit", RETRAINING, "--as", "cron"]) == 2
    assert "already exists in namespace argotune" in capsys.readouterr().err
    assert main(["submit", RETRAINING, "--as", "cron", "--watch"]) == 2


def test_dry_runs_create_nothing(cluster, capsys):
    assert main(["submit", EXAMPLE, "--dry-run=client", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["generateName"] == "oncall-"
    assert cluster.calls == []
    assert main(["submit", EXAMPLE, "--dry-run=server"]) == 0
    assert "is valid" in capsys.readouterr().out
    assert cluster.all("workflows") == []


def test_invalid_input_is_reported_before_any_request(cluster, capsys, tmp_path):
    assert main(["submit", EXAMPLE, "-p", "epoch=1", "-p", "push=maybe"]) == 2
    shown = capsys.readouterr().err
    assert "did you mean epochs?" in shown and "use one of true, false" in shown
    broken = yaml.safe_load(Path(COMPILED).read_text())
    broken["spec"]["entrypoint"] = "mian"
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    assert main(["submit", str(tmp_path / "broken.yaml")]) == 2
    assert "mian" in capsys.readouterr().err
    (tmp_path / "pod.yaml").write_text("apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: x}\n")
    assert main(["submit", str(tmp_path / "pod.yaml")]) == 2
    assert "Rollout cannot be submitted" in capsys.readouterr().err
    assert main(["submit", str(tmp_path / "none.yaml")]) == 2
    assert cluster.calls == []


def controller(cluster, run: ArgoRun):
    """Return a hook that completes a created run once it is watched."""

    def on_call(call) -> None:
        created = cluster.all("workflows")
        if call.verb == "watch" and not run.status:
            run.document = created[0]
            run.name = created[0]["metadata"]["name"]
            threading.Thread(target=move, daemon=True).start()

    def move() -> None:
        cluster.put(run.phase("Running").step("provision", "Running").now())
        cluster.put(run.at(1).step("provision", "Succeeded").step("download", "Succeeded").now())
        cluster.put(run.at(2).step("tune", "Running", progress="12/48").now())
        outputs = {"endpoint": "http://oncall.argotune", "answer": "Cause: x", "base-answer": "Well"}
        cluster.put(run.at(9).all_succeeded(rollout=outputs).phase("Succeeded").now())

    return on_call


def test_watching_shows_steps_and_result(cluster, capsys):
    cluster.every_call.append(controller(cluster, ArgoRun()))
    assert main(["submit", EXAMPLE, "--watch"]) == 0
    shown = capsys.readouterr()
    assert "endpoint:   http://oncall.argotune" in shown.out
    assert 'ask:        argotune chat --cluster oncall -n argotune "QUESTION"' in shown.out
    assert "tune: Running" in shown.err and "rollout: Succeeded" in shown.err


def test_watching_returns_the_exit_code_and_prints_the_error_of_the_run(cluster, capsys):
    run = ArgoRun().step("provision", "Failed", message="main: Error (exit code 4)", exit_code=4).phase("Failed")
    cluster.put(run.now())
    log = "asking for quota\nerror: no quota for Standard_NC24ads_A100_v4\n  fix: ask for more, or another size"
    add_pod(cluster, run, "provision", log)
    assert main(["status", NAME, "--watch"]) == 4
    shown = capsys.readouterr().err
    assert "provision failed: main: Error (exit code 4)" in shown
    assert "error: no quota for Standard_NC24ads_A100_v4\n  fix: ask for more" in shown
    assert main(["status", NAME]) == 0


@pytest.mark.parametrize("verb", ["submit", "status", "logs"])
def test_ctrl_c_stops_watching_not_the_run(cluster, verb):
    args = {"submit": [EXAMPLE, "--watch"], "status": [NAME, "--watch"], "logs": [NAME, "-f"]}[verb]
    if verb != "submit":
        cluster.put(ArgoRun().step("tune", "Running").now())
    watched = threading.Event()
    cluster.every_call.append(lambda call: call.verb == "watch" and watched.set())
    command = [sys.executable, "-m", "workflows.cli", verb, *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watched.wait(300)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 5, err
    (created,) = cluster.all("workflows")
    name = created["metadata"]["name"]
    assert f"{name} continues" in err
    assert f"argotune status {name} --watch -n argotune" in err
    assert "shutdown" not in created["spec"]
    assert "Traceback" not in err


def test_runs_are_listed_newest_first_in_kaitos_columns(cluster, capsys):
    assert main(["ls"]) == 0
    out, err = capsys.readouterr()
    assert not out and err.endswith("/runs/ and namespace argotune; list all namespaces with -A\n")
    assert main(["ls", "--cluster"]) == 0
    assert capsys.readouterr() == ("", "no runs in namespace argotune; list all namespaces with -A\n")
    old = ArgoRun(name="old").all_succeeded().phase("Succeeded").now()
    new = ArgoRun(name="new").now()
    new["metadata"]["creationTimestamp"] = "2026-08-22T10:00:00Z"
    cluster.put(old)
    cluster.put(new)
    assert main(["ls"]) == 0
    head, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["NAME", "WHERE", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]
    assert [row[0] for row in rows] == ["new", "old"]
    assert rows[1][1:6] == ["cluster", rows[1][2], *["True"] * 3]
    assert main(["ls", "-l", "argotune.dev/workspace=other", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["ls", "-A", "-o", "wide"]) == 0
    assert capsys.readouterr().out.startswith("NAMESPACE   NAME")
    assert main(["status", "-o", "name"]) == 0
    assert capsys.readouterr().out == "new\nold\n"


def test_more_runs_than_a_page_holds(cluster, capsys, monkeypatch):
    monkeypatch.setattr("workflows.cluster.kubernetes_api.PAGE", 3)
    for number in range(8):
        cluster.put(ArgoRun(name=f"run-{number}").now())
    assert main(["ls", "-o", "name"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_changes_are_listed_until_ctrl_c(cluster):
    run = ArgoRun()
    cluster.put(run.now())
    command = [sys.executable, "-m", "workflows.cli", "ls", "--watch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = [process.stdout.readline(), process.stdout.readline()]
    cluster.put(run.all_succeeded().phase("Succeeded").now())
    third = process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(300) == 0
    assert first[0].startswith("NAME") and "Unknown" in first[1] and third.count("True") == 3


def test_one_run_is_shown_step_by_step(cluster, capsys):
    cluster.put(ArgoRun().step("provision", "Succeeded").at(3).step("tune", "Running", progress="12/48").now())
    assert main(["status", "@latest"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^tune +Running +\S+ +12/48$", shown, re.MULTILINE)
    assert main(["status", NAME, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == NAME
    assert main(["status", NAME, "-A"]) == 2


def test_a_workspace_is_its_newest_run(cluster, capsys):
    old, new = ArgoRun(name="oncall-old").now(), ArgoRun(name="oncall-new").now()
    new["metadata"]["creationTimestamp"] = "2099-08-22T10:00:00Z"
    for document in (old, new):
        cluster.put(document)
    assert main(["status", "oncall", "-o", "name"]) == 0
    assert capsys.readouterr().out == "oncall-new\n"


def test_an_unknown_name_suggests_similar_ones(cluster, capsys):
    cluster.put(ArgoRun().now())
    for verb in (["status"], ["logs"], ["approve"], ["stop", "--cluster"]):
        assert main([*verb, "oncal-x7k2m"]) == 2
        assert f"did you mean {NAME}?" in capsys.readouterr().err


def test_logs_are_printed_by_step_and_attempt(cluster, capsys):
    run = ArgoRun().step("provision", "Succeeded").at(1).step("tune", "Failed", exit_code=137)
    run.at(2).step("tune", "Running", attempt=1)
    cluster.put(run.now())
    add_pod(cluster, run, "tune", "step 1\nstep 2")
    add_pod(cluster, run, "tune", "resumed\nstep 3", attempt=1)
    assert main(["logs", NAME]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "[tune] step 1",
        "[tune] step 2",
        "[tune, attempt 2] resumed",
        "[tune, attempt 2] step 3",
    ]
    assert "provision: its log is gone" in shown.err and "podGC" in shown.err
    assert main(["logs", NAME, "--step", "tune"]) == 0
    assert capsys.readouterr().out == "step 1\nstep 2\nresumed\nstep 3\n"
    assert main(["logs", NAME, "--step", "tine"]) == 2


def test_followed_logs_print_each_line_once(cluster, capsys):
    run = ArgoRun().step("provision", "Running")
    cluster.put(run.now())
    add_pod(cluster, run, "provision", "".join(f"line {n}\n" for n in range(200)))
    states = iter(
        [
            lambda: run.at(1).step("provision", "Succeeded").step("tune", "Running"),
            lambda: run.at(2).step("tune", "Succeeded").phase("Succeeded"),
        ]
    )

    def on(call) -> None:
        # Each log is requested twice before its step ends: truncated, then complete.
        if (call.resource, call.subresource) == ("pods", "log"):
            requests[call.name] = requests.get(call.name, 0) + 1
            if requests[call.name] == 2 and (change := next(states, None)):
                add_pod(cluster, run, "tune", "step 1\nstep 2")
                cluster.put(change().now())

    requests: dict[str, int] = {}
    cluster.every_call.append(on)
    cluster.every_call.append(
        lambda call: call.subresource == "log" and requests[call.name] == 1 and cut(cluster, call)
    )
    assert main(["logs", NAME, "-f"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [f"[provision] line {n}" for n in range(200)] + ["[tune] step 1", "[tune] step 2"]
    assert f"{NAME}: Succeeded" in shown.err


def cut(cluster, call) -> None:
    """Truncate the log; the next request returns all of it."""
    key = (call.namespace, call.name, "main")
    whole = cluster.logs[key]
    if len(whole) > 1000:
        cluster.logs[key] = whole[: whole.index("\n", len(whole) // 2) + 1]
        cluster.every_call.append(lambda later: later.name == call.name and cluster.logs.update({key: whole}))


@pytest.mark.parametrize(("flags", "answer"), [([], "YES"), (["--no"], "NO"), (["-p", "approve=NO"], "NO")])
def test_an_approval_is_written_as_argo_writes_it(cluster, capsys, flags, answer):
    cluster.put(ArgoRun(APPROVED).suspended().now())
    assert main(["approve", NAME, *flags]) == 0
    assert f"approve={answer}" in capsys.readouterr().out
    (created,) = cluster.all("workflows")
    (node,) = [node for node in created["status"]["nodes"].values() if node["type"] == "Suspend"]
    assert node["phase"] == "Succeeded" and node["finishedAt"]
    assert node["outputs"]["parameters"] == [{"name": "approve", "value": answer}]
    assert "argotune approve" in node["message"]
    assert main(["approve", NAME]) == 2
    err = capsys.readouterr().err
    assert "is already answered" in err and f"fix: see argotune status {NAME} -n argotune" in err


def test_a_concurrent_write_of_the_controller_is_kept(cluster):
    run = ArgoRun(APPROVED).suspended()
    cluster.put(run.now())

    def write(call) -> None:
        if call.verb == "patch":
            cluster.every_call.clear()
            cluster.put(run.step("provision", "Running").now())

    cluster.every_call.append(write)
    assert main(["approve", NAME]) == 0
    phases = {node["displayName"]: node["phase"] for node in cluster.all("workflows")[0]["status"]["nodes"].values()}
    assert (phases["approval"], phases["provision"]) == ("Succeeded", "Running")


def test_invalid_answers_are_rejected(cluster, capsys):
    cluster.put(ArgoRun(APPROVED).suspended().now())
    assert main(["approve", NAME, "-p", "approve=MAYBE"]) == 2
    assert main(["approve", NAME, "-p", "other=1"]) == 2
    shown = capsys.readouterr().err
    assert "approve=YES or NO" in shown and "has no parameter" in shown
    assert ("patch", "argoproj.io", "workflows") not in cluster.verbs()


def test_stopping_on_a_cluster_requires_a_flag(cluster, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cluster.put(ArgoRun().step("tune", "Running").now())
    assert main(["stop", NAME]) == 2
    assert "add --cluster" in capsys.readouterr().err
    assert main(["stop", NAME, "--cluster"]) == 0
    assert cluster.all("workflows")[0]["spec"]["shutdown"] == "Stop"
    assert "exit handler still runs" in capsys.readouterr().out
    assert main(["stop", NAME, "-n", "argotune", "--terminate"]) == 0
    assert cluster.all("workflows")[0]["spec"]["shutdown"] == "Terminate"
    assert main(["stop", "--all", "--cluster"]) == 2
    cluster.put(ArgoRun().phase("Succeeded").now())
    assert main(["stop", NAME, "--cluster"]) == 0
    assert "has already ended" in capsys.readouterr().out


def permissions(role: str) -> set[tuple[str, str, str]]:
    documents = yaml.safe_load_all((ROOT / "argo" / "install" / "roles.yaml").read_text())
    (item,) = [item for item in documents if item["kind"] == "Role" and item["metadata"]["name"] == role]
    return {
        (verb, group, resource)
        for rule in item["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_roles_have_exactly_the_permissions_of_the_commands(cluster):
    cluster.every_call.append(controller(cluster, ArgoRun()))
    assert main(["submit", EXAMPLE, "--watch"]) == 0
    assert main(["ls"]) == 0
    submitter = permissions("argotune-submitter")
    optional = {("list", "", "nodes"), ("list", "", "pods")}  # who holds the GPUs; not checked without
    runs = {right for right in submitter if right[2] in ("workflows", "persistentvolumeclaims")}
    assert cluster.verbs() == runs | optional
    for kind in ("template", "cron"):
        assert main(["submit", RETRAINING, "--as", kind]) == 0
    assert cluster.verbs() <= submitter | optional
    cluster.calls.clear()
    run = ArgoRun(APPROVED).suspended().step("tune", "Running")
    cluster.put(run.now())
    add_pod(cluster, run, "tune", "step 1")
    cluster.every_call[:] = [
        lambda call: call.verb == "watch" and cluster.put(run.phase("Failed").now()),
    ]
    for args in (["ls"], ["approve", NAME], ["stop", NAME, "--cluster"], ["logs", NAME, "-f"]):
        assert main(args) == 0
    assert cluster.verbs() == permissions("argotune-operator")
