"""One leaf: volumes, words, environment, outputs, progress, time limits, stopping."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from runner_documents import (
    EXIT,
    OUT,
    PRINT,
    QUICK,
    WRITE,
    ClockAtFile,
    Recorder,
    dag,
    inputs,
    is_alive,
    leaf,
    log_of,
    task,
    workflow,
    writer,
)

from workflows import runner
from workflows.runner.control import Timing
from workflows.runner.outcome import Outcome
from workflows.runner.volumes import Folder, Mounts

READ = "import sys; print(open(sys.argv[1]).read())"
SHOW = "import json, os, sys; print(json.dumps([os.getcwd(), sys.argv[1:], dict(os.environ)]))"


def mounts(**paths: str) -> dict[str, Any]:
    return {"volumeMounts": [{"name": name, "mountPath": path} for name, path in paths.items()]}


def run(tmp_path: Path, *templates: dict[str, Any], timing: Timing = QUICK, **options: Any) -> Outcome:
    """Run the templates as tasks, each after the one before it."""
    spec = options.pop("spec", {})
    names = [template["name"] for template in templates]
    tasks = [task(name, **({"depends": names[i - 1]} if i else {})) for i, name in enumerate(names)]
    document = workflow(dag(*tasks), *templates, **spec)
    return runner.start(document, tmp_path / "run", name="test", timing=timing, **options)


def shown(tmp_path: Path, key: str) -> tuple[str, list[str], dict[str, str]]:
    folder, words, environment = json.loads(log_of(tmp_path / "run", key))
    return folder, words, environment


def test_claim_host_path_and_empty_dir_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "home"))
    host = tmp_path / "host"
    host.mkdir()
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "models", "persistentVolumeClaim": {"claimName": "argotune-models"}},
        {"name": "mine", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "host", "hostPath": {"path": str(host)}},
    ]
    (tmp_path / "given").mkdir()
    all_mounts = mounts(work="/mnt/work", models="/mnt/models", mine="/mnt/data", host="/mnt/host", scratch="/tmp")
    every = "import sys, os\nfor path in sys.argv[1:]: open(path, 'w').write('x')"
    paths = ["/mnt/work/w", "/mnt/models/m", "/mnt/data/d", "/mnt/host/h", "/tmp/s"]
    outcome = run(
        tmp_path,
        leaf("a", every, *paths, container=all_mounts),
        leaf("b", READ, "/mnt/work/w", container=mounts(work="/mnt/work")),
        leaf("c", READ, "/tmp/s", container=all_mounts),
        volumes={"data": tmp_path / "given"},
        spec={"volumes": volumes},
    )
    assert outcome.nodes["b"].phase == "Succeeded"
    assert outcome.nodes["c"].phase == "Failed", "an emptyDir begins empty in each pod"
    made = [
        tmp_path / "run/volumes/work/w",
        tmp_path / "home/volumes/argotune-models/m",
        tmp_path / "given/d",
        host / "h",
    ]
    assert all(path.read_text() == "x" for path in made)
    assert (tmp_path / "run/nodes/a/attempt-1/volumes/scratch/s").exists()


def test_secrets_and_cluster_volumes_use_the_passed_directories(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / ".dockerconfigjson").write_text("login")
    (tmp_path / "nfs").mkdir()
    (tmp_path / "nfs" / "rows").write_text("rows")
    volumes = [
        {
            "name": "push",
            "secret": {"secretName": "acr", "items": [{"key": ".dockerconfigjson", "path": "config.json"}]},
        },
        {"name": "far", "nfs": {"server": "x", "path": "/"}},
        {"name": "maybe", "configMap": {"name": "gone", "optional": True}},
    ]
    container = mounts(push="/root/.docker", far="/mnt/far", maybe="/etc/maybe")
    outcome = run(
        tmp_path,
        leaf("a", READ, "/root/.docker/config.json", container=container),
        leaf("b", READ, "/mnt/far/rows", container=container),
        spec={"volumes": volumes},
        volumes={"acr": tmp_path / "docker", "far": tmp_path / "nfs"},
    )
    assert outcome.phase == "Succeeded"
    assert log_of(tmp_path / "run", "a").strip() == "login"
    assert log_of(tmp_path / "run", "b").strip() == "rows"


def test_several_secrets_and_config_maps_of_one_volume(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".dockerconfigjson").write_text(name)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("all keys")
    sources = [
        {"secret": {"name": name, "items": [{"key": ".dockerconfigjson", "path": f"{name}.json"}], "optional": True}}
        for name in ("first", "second", "absent")
    ]
    volumes = [{"name": "pull", "projected": {"sources": [*sources, {"configMap": {"name": "texts"}}]}}]
    container = mounts(pull="/mnt/pull")
    outcome = run(
        tmp_path,
        leaf("a", READ, "/mnt/pull/first.json", container=container),
        leaf("b", READ, "/mnt/pull/second.json", container=container),
        leaf("c", READ, "/mnt/pull/a.txt", container=container),
        spec={"volumes": volumes},
        volumes={name: tmp_path / name for name in ("first", "second", "texts")},
    )
    assert outcome.phase == "Succeeded"
    assert [log_of(tmp_path / "run", name).strip() for name in "abc"] == ["first", "second", "all keys"]
    assert not list((tmp_path / "run/nodes/a/attempt-1/volumes/pull").glob("absent*"))


def test_sub_path_is_a_directory_in_the_volume(tmp_path: Path) -> None:
    one = {"volumeMounts": [{"name": "work", "mountPath": "/mnt/one", "subPath": "{{workflow.name}}/one"}]}
    assert run(tmp_path, leaf("a", WRITE, "/mnt/one/f", "x", container=one)).phase == "Succeeded"
    assert (tmp_path / "run/volumes/work/test/one/f").read_text() == "x"


MOUNTS = Mounts(
    [
        Folder("/mnt/work/deep", Path("/h/deep"), True),
        Folder("/mnt/work", Path("/h/w"), True),
        Folder("/tmp", Path("/h/t"), False),
    ]
)


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("/mnt/work", "/h/w"),
        ("/mnt/work/", "/h/w/"),
        ("/mnt/work/a b", "/h/w/a b"),
        ("/mnt/work/deep/x", "/h/deep/x"),
        ("/mnt/work/deeper", "/h/w/deeper"),
        ("/mnt/workshop", "/mnt/workshop"),
        ("--out=/mnt/work/x", "--out=/h/w/x"),
        ("--out", "--out"),
        ("see /mnt/work/x", "see /mnt/work/x"),
        ("/h/w/already", "/h/w/already"),
        ('["/mnt/work/a", "b", 1]', '["/h/w/a", "b", 1]'),
        ('["http://x/mnt/work"]', '["http://x/mnt/work"]'),
        ("[/mnt/work", "[/mnt/work"),
        ("/tmp/x", "/h/t/x"),
    ],
)
def test_arguments_that_start_with_a_mount_path_are_rewritten(word: str, here: str) -> None:
    assert MOUNTS.rewrite(word) == here


def test_paths_from_other_attempts_do_not_map_to_empty_dir(tmp_path: Path) -> None:
    """A path that another step (or the user) names can't mean an emptyDir, which is new in every pod."""
    document = workflow(
        dag(task("a", arguments={"p": "/tmp/host/file"}), task("b", "a", arguments={"p": "/mnt/work/file"})),
        leaf(
            "a",
            PRINT,
            "/tmp/mine",
            "{{inputs.parameters.p}}",
            container=mounts(work="/mnt/work", scratch="/tmp"),
            inputs=inputs("p"),
        ),
    )
    runner.start(document, tmp_path / "run", name="test", timing=QUICK)
    mine = str(tmp_path / "run/nodes/a/attempt-1/volumes/scratch/mine")
    assert log_of(tmp_path / "run", "a").split() == [mine, "/tmp/host/file"]
    assert log_of(tmp_path / "run", "b").split()[1] == str(tmp_path / "run/volumes/work/file")


def test_environment_and_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "from the caller")
    monkeypatch.setenv("CALLERS", "too")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # as in a pod of a notebook
    monkeypatch.delenv("NOBODY", raising=False)
    env = [
        {"name": "HOME_DIR", "value": "/mnt/work/home"},
        {"name": "PLAIN", "value": "{{workflow.name}}"},
        {"name": "BOTH", "value": "$(PLAIN)-$$(PLAIN)"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "NOBODY", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y", "optional": True}}},
    ]
    container = mounts(work="/mnt/work") | {"env": env, "workingDir": "/mnt/work/cwd"}
    outcome = run(tmp_path, leaf("a", SHOW, "$(PLAIN)", container=container), leaf("b", SHOW))
    assert outcome.phase == "Succeeded"
    folder, words, environment = shown(tmp_path, "a")
    work = tmp_path / "run/volumes/work"
    assert (folder, words) == (str(work / "cwd"), ["test"])
    assert "KUBERNETES_SERVICE_HOST" not in environment
    assert environment["HOME_DIR"] == str(work / "home")
    assert environment["BOTH"] == "test-$(PLAIN)"
    assert (environment["HF_TOKEN"], environment["CALLERS"]) == ("from the caller", "too")
    assert "NOBODY" not in environment
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert environment["ARGO_NODE_ID"] == "test-a"
    assert environment["ARGOTUNE_NODE"] == f"{runner.read_state(outcome.folder).uid}/a"
    folder, _, environment = shown(tmp_path, "b")
    assert folder == str(tmp_path / "run/nodes/b")
    assert (
        "from the caller"
        not in (tmp_path / "run/state.json").read_text() + (tmp_path / "run/workflow.json").read_text()
    )


def test_python_is_the_running_interpreter(tmp_path: Path) -> None:
    for name in ("python", "python3"):
        template = leaf(
            "a",
            "import sys; print(sys.executable)",
            container={"command": [name, "-c", "import sys; print(sys.executable)"]},
        )
        run(tmp_path / name, template)
        assert log_of(tmp_path / name / "run", "a").strip() == sys.executable


def test_command_not_found_is_an_error(tmp_path: Path) -> None:
    outcome = run(tmp_path, leaf("a", "", container={"command": ["no-such-program"]}))
    assert (outcome.phase, outcome.exit_code) == ("Error", None)
    assert outcome.message == "a failed: command not found: `no-such-program`"


def test_missing_output_without_default_is_an_error(tmp_path: Path) -> None:
    def silent(name: str, **source: str) -> dict[str, Any]:
        outputs = {"parameters": [{"name": "o", "valueFrom": {"path": OUT, **source}}]}
        return leaf(name, EXIT, "0", container=mounts(scratch="/mnt/scratch"), outputs=outputs)

    outcome = run(tmp_path, silent("with", default="none"), silent("without"))
    assert outcome.outputs["with"] == {"o": "none"}
    assert outcome.nodes["without"].phase == "Error"
    assert outcome.message == "without failed: the outputs are missing: o"


def test_failed_container_keeps_its_outputs(tmp_path: Path) -> None:
    template = writer("a", "fail")
    template["container"]["command"][-1] = WRITE + "; sys.exit(3)"
    outcome = run(tmp_path, template)
    assert (outcome.exit_code, outcome.outputs) == (3, {"a": {"out": "fail"}})


def test_one_trailing_line_break_of_an_output_is_removed(tmp_path: Path) -> None:
    outcome = run(tmp_path, writer("a", "two\nlines\n\n"))
    assert outcome.outputs == {"a": {"out": "two\nlines\n"}}


def test_last_line_is_the_message_without_an_error_line(tmp_path: Path) -> None:
    outcome = run(tmp_path, leaf("a", "print('working'); raise ValueError('odd')"))
    assert outcome.message == "a failed: exit code 1: ValueError: odd"


def test_lines_and_progress_reach_the_observer(tmp_path: Path) -> None:
    code = """import os, time, sys
print('first'); print('bar 1/2', end='\\r'); print('bar 2/2', file=sys.stderr)
for n in (1, 2):
    open(os.environ['ARGO_PROGRESS_FILE'] + '.new', 'w').write(f'{n}/2\\n')
    os.replace(os.environ['ARGO_PROGRESS_FILE'] + '.new', os.environ['ARGO_PROGRESS_FILE'])
sys.stdout.write('no line break')"""
    recorder = Recorder()
    run(tmp_path, leaf("a", code), observer=recorder)
    assert [line for _, line in recorder.lines if line != "bar 2/2"] == ["first", "bar 1/2", "no line break"]
    assert ("a", "bar 2/2") in recorder.lines
    assert recorder.fractions[-1] == ("a", 2, 2)


# The file appears with its content whole.
HANG = """import os, sys, time
open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); os.replace(sys.argv[1] + '.new', sys.argv[1])
time.sleep(600)"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HANG


@pytest.mark.parametrize(("field", "value"), [("timeout", "1h"), ("activeDeadlineSeconds", 3600)])
def test_container_is_ended_at_its_time_limit(tmp_path: Path, field: str, value: Any) -> None:
    marker = tmp_path / "marker"
    outcome = run(tmp_path, leaf("a", HANG, str(marker), **{field: value}), timing=ClockAtFile(marker, 3601).timing)
    assert (outcome.phase, outcome.exit_code) == ("Failed", 143)
    assert f"took longer than its {field}" in outcome.message
    assert not is_alive(int(marker.read_text()))


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    clock = ClockAtFile(marker, 3601)
    timing = Timing(now=clock.now, sleep=clock.sleep, grace=0.2, poll=0.01)
    outcome = run(tmp_path, leaf("a", STUBBORN, str(marker), timeout="1h"), timing=timing)
    assert outcome.exit_code == 137
    assert not is_alive(int(marker.read_text()))


def test_the_grace_period_of_the_document(tmp_path: Path) -> None:
    """SIGKILL comes at once where the document gives no time; nothing here waits for the default of 30 s."""
    marker = tmp_path / "marker"
    clock = ClockAtFile(marker, 3601)
    template = leaf("a", STUBBORN, str(marker), timeout="1h", podSpecPatch='{"terminationGracePeriodSeconds": 0}')
    outcome = run(tmp_path, template, timing=Timing(now=clock.now, sleep=clock.sleep, poll=0.01))
    assert outcome.exit_code == 137


def test_workflow_deadline_ends_the_run_and_runs_the_exit_handler(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    clock = ClockAtFile(marker, 0)
    document = workflow(
        dag(task("a"), task("b", depends="a")),
        leaf("a", HANG, str(marker), retryStrategy={"limit": 3, "retryPolicy": "Always"}),
        leaf("b", EXIT, "0"),
        leaf("bye", PRINT, "{{workflow.status}}"),
        onExit="bye",
        activeDeadlineSeconds=3600,
    )
    outcome = runner.start(document, tmp_path / "run", name="test", timing=clock.timing)
    assert (outcome.phase, outcome.command_exit_code) == ("Failed", 6)
    assert outcome.message == "the workflow took longer than its activeDeadlineSeconds (3600 s)"
    assert log_of(tmp_path / "run", "onExit").strip() == "Failed"
    assert len(outcome.nodes["a"].attempts) == 1, "no retry after the deadline"
    assert outcome.nodes["b"].phase == "Omitted"


def test_children_end_with_their_container_and_daemons_stay(tmp_path: Path) -> None:
    code = """import subprocess, sys
child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])
daemon = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'], start_new_session=True)
print(child.pid, daemon.pid)"""
    outcome = run(tmp_path, leaf("a", code))
    assert outcome.phase == "Succeeded", "a daemon that keeps the log open must not block the run"
    child, daemon = map(int, log_of(tmp_path / "run", "a").split())
    try:
        assert not is_alive(child)
        assert is_alive(daemon)
    finally:
        import os
        import signal

        os.kill(daemon, signal.SIGKILL)


def test_large_output_is_not_truncated(tmp_path: Path) -> None:
    run(tmp_path, leaf("a", "for i in range(20000): print('line', i)"))
    assert len(log_of(tmp_path / "run", "a").splitlines()) == 20000


def test_written_state_is_read_back(tmp_path: Path) -> None:
    outcome = run(tmp_path, writer("a", "1"))
    state = runner.read_state(tmp_path / "run")
    assert (state.name, state.phase, state.main) == ("test", "Succeeded", "Succeeded")
    assert state.nodes["a"].outputs == {"out": "1"} == outcome.outputs["a"]
    attempt = state.nodes["a"].attempts[0]
    assert (attempt.exit_code, attempt.phase) == (0, "Succeeded")
    assert attempt.finished_at and attempt.finished_at >= attempt.started_at
