"""Argo's semantics, with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runner_documents import (
    EXIT,
    PRINT,
    QUICK,
    Recorder,
    dag,
    echo,
    exits,
    inputs,
    leaf,
    log_text,
    phases,
    run,
    task,
    workflow,
    writer,
)

from workflows import runner


def test_outputs_flow_to_dependent_tasks(tmp_path: Path) -> None:
    text = {"text": "got {{tasks.a.outputs.parameters.out}} {{tasks.a.status}} {{tasks.a.exitCode}}"}
    outcome = run(
        tmp_path, workflow(dag(task("a"), task("b", "echo", depends="a", arguments=text)), writer("a", "2e-4"), echo())
    )
    assert outcome.phase == "Succeeded"
    assert log_text(tmp_path, "b") == "got 2e-4 Succeeded 0"
    assert outcome.outputs == {"a": {"out": "2e-4"}}
    assert outcome.command_exit_code == 0


def test_parameters_and_overrides(tmp_path: Path) -> None:
    words = (
        "{{workflow.parameters.a}}/{{workflow.parameters.b}}/{{workflow.labels.team}}/{{workflow.annotations.note}}"
    )
    document = workflow(dag(task("x", "echo", arguments={"text": words})), echo(), parameters={"a": "1", "b": 2})
    run(tmp_path, document, parameters={"a": "changed"})
    assert log_text(tmp_path, "x") == "changed/2/red/a b"
    kept = json.loads((tmp_path / "run" / "workflow.json").read_text())
    assert kept["spec"]["arguments"]["parameters"][0]["value"] == "changed"


def test_tags_of_the_workflow(tmp_path: Path) -> None:
    text = (
        "{{workflow.name}} {{workflow.status}} {{ workflow.uid }} {{workflow.creationTimestamp}} {{workflow.duration}}"
    )
    outcome = run(tmp_path, workflow(dag(task("x", "echo", arguments={"text": text})), echo()))
    name, status, uid, created, duration = log_text(tmp_path, "x").split()
    assert (name, status) == ("test-1", "Running")
    assert uid == runner.read_state(outcome.folder).uid
    assert created.endswith("Z") and float(duration) >= 0


def test_values_are_replaced_once_and_other_braces_stay(tmp_path: Path) -> None:
    text = "{{ messages }} {{workflow.parameters.p}} {{item}} $(NOBODY)"
    document = workflow(
        dag(task("x", "echo", arguments={"text": text})), echo(), parameters={"p": "{{workflow.name}}"}
    )
    run(tmp_path, document)
    assert log_text(tmp_path, "x") == "{{ messages }} {{workflow.name}} {{item}} $(NOBODY)"


def test_when_false_skips_and_satisfies_a_bare_dependency(tmp_path: Path) -> None:
    document = workflow(
        dag(
            task("gate"),
            task("skipped", "exits", depends="gate", when="{{tasks.gate.outputs.parameters.out}} == pass"),
            task("bare", "exits", depends="skipped"),
            task("strict", "exits", depends="skipped.Succeeded"),
        ),
        writer("gate", "fail"),
        exits(),
    )
    outcome = run(tmp_path, document)
    assert phases(outcome) == {"gate": "Succeeded", "skipped": "Skipped", "bare": "Succeeded", "strict": "Omitted"}
    assert outcome.phase == "Succeeded"
    assert outcome.nodes["skipped"].message == "when 'fail == pass' is false"


def test_when_without_value_is_an_error(tmp_path: Path) -> None:
    document = workflow(
        dag(task("a"), task("b", "exits", depends="a", when="{{tasks.a.outputs.parameters.out}} == x")),
        writer("a", "two words"),
        exits(),
    )
    outcome = run(tmp_path, document)
    assert phases(outcome)["b"] == "Error"
    assert outcome.phase == "Error"
    assert "two words" in outcome.message


def test_a_termination_message_is_the_message_of_its_attempt(tmp_path: Path) -> None:
    code = (
        "import os, sys; open(os.environ['ARGOTUNE_TERMINATION_LOG'], 'w').write('no rows\\nfix: give rows');"
        "print('loading'); sys.exit(2)"
    )
    outcome = run(tmp_path, workflow(dag(task("a")), leaf("a", code)))
    assert (outcome.message, outcome.fix, outcome.exit_code) == ("a failed: no rows", "give rows", 2)


def test_failure_omits_dependent_tasks_and_is_the_root_failure(tmp_path: Path) -> None:
    code = "import sys; print('loading'); print('error: no rows\\n  fix: give rows', file=sys.stderr); sys.exit(2)"
    document = workflow(
        dag(task("a"), task("b", "exits", depends="a"), task("c", "exits", depends="b")), leaf("a", code), exits()
    )
    outcome = run(tmp_path, document)
    assert phases(outcome) == {"a": "Failed", "b": "Omitted", "c": "Omitted"}
    assert outcome.phase == "Failed"
    assert outcome.message == "a failed: exit code 2: no rows"
    assert (outcome.fix, outcome.failed, outcome.exit_code, outcome.command_exit_code) == ("give rows", "a", 2, 2)


def test_handled_failure_does_not_fail_the_run(tmp_path: Path) -> None:
    tasks = [
        task("a", "exits", arguments={"code": "1"}),
        task("b", "exits", depends="a.Failed"),
        task("c", "exits", depends="a.Errored"),
    ]
    outcome = run(tmp_path, workflow(dag(*tasks), exits()))
    assert phases(outcome) == {"a": "Failed", "b": "Succeeded", "c": "Omitted"}
    assert outcome.phase == "Failed", "the omitted leaf c inherits the failure of a"
    tasks = tasks[:2]
    outcome = runner.start(workflow(dag(*tasks), exits()), tmp_path / "two", name="x", timing=QUICK)
    assert outcome.phase == "Succeeded"


def test_fail_fast_starts_no_new_task(tmp_path: Path) -> None:
    # slow ends only after bad has failed; so next is what failing fast is about.
    wait = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)"
    marker = tmp_path / "run" / "volumes" / "work" / "failed"
    mounts = {"volumeMounts": [{"name": "work", "mountPath": "/mnt/work"}]}
    fail = "import sys; open(sys.argv[1], 'w'); sys.exit(1)"

    def document(**options: Any) -> dict[str, Any]:
        tasks = task("bad"), task("slow"), task("next", "exits", depends="slow")
        return workflow(
            dag(*tasks, **options),
            leaf("bad", fail, "/mnt/work/failed", container=mounts),
            # its own look at the state: only when bad is known to have failed
            leaf(
                "slow",
                wait + '\nwhile \'"phase": "Failed"\' not in open(sys.argv[2]).read(): time.sleep(0.01)',
                str(marker),
                str(tmp_path / "run" / "state.json"),
            ),
            exits(),
        )

    outcome = run(tmp_path, document())
    assert phases(outcome) == {"bad": "Failed", "slow": "Succeeded", "next": "Omitted"}
    assert "failFast" in outcome.nodes["next"].message
    os.rename(tmp_path / "run", tmp_path / "before")
    outcome = run(tmp_path, document(dag_fail_fast=False))
    assert phases(outcome) == {"bad": "Failed", "slow": "Succeeded", "next": "Succeeded"}
    assert outcome.phase == "Failed"


def test_output_of_a_skipped_task_uses_the_default_of_producer_then_consumer(tmp_path: Path) -> None:
    def reader(name: str, **defaults: str) -> dict[str, Any]:
        given = inputs(**defaults) if defaults else inputs("x")
        return leaf(name, PRINT, "{{inputs.parameters.x}}", inputs=given)

    ref = {"x": "{{tasks.%s.outputs.parameters.out}}"}
    document = workflow(
        dag(
            task("with", when="1 == 2"),
            task("without", when="1 == 2"),
            task("producer", "plain", depends="with", arguments={"x": ref["x"] % "with"}),
            task("consumer", "fallback", depends="without", arguments={"x": ref["x"] % "without"}),
            task("neither", "plain", depends="without", arguments={"x": ref["x"] % "without"}),
            task("partly", "fallback", depends="without", arguments={"x": "a " + ref["x"] % "without"}),
            dag_fail_fast=False,
        ),
        writer("with", "1", default="theirs"),
        writer("without", "1"),
        reader("plain"),
        reader("fallback", x="mine"),
    )
    outcome = run(tmp_path, document)
    assert log_text(tmp_path, "producer") == "theirs"
    assert log_text(tmp_path, "consumer") == "mine"
    assert phases(outcome)["neither"] == phases(outcome)["partly"] == "Error"
    assert "`without` is Skipped" in outcome.nodes["neither"].message


def test_standard_output_as_result(tmp_path: Path) -> None:
    code = "import sys; print('[1, 2]'); print('aside', file=sys.stderr)"
    document = workflow(
        dag(
            task("a"),
            task("b", "echo", depends="a", withParam="{{tasks.a.outputs.result}}", arguments={"text": "{{item}}"}),
        ),
        leaf("a", code),
        echo(),
    )
    recorder = Recorder()
    run(tmp_path, document, observer=recorder)
    assert (log_text(tmp_path, "b.0"), log_text(tmp_path, "b.1")) == ("1", "2")
    assert log_text(tmp_path, "a") == "aside"
    assert {("a", "[1, 2]"), ("a", "aside")} <= set(recorder.lines)


def test_nested_dags_have_inputs_and_outputs(tmp_path: Path) -> None:
    inner = dag(
        task("w", arguments={"text": "<{{inputs.parameters.text}}>"}),
        name="inner",
        inputs=inputs("text"),
        outputs={"parameters": [{"name": "both", "valueFrom": {"parameter": "{{tasks.w.outputs.parameters.out}}!"}}]},
    )
    document = workflow(
        dag(
            task("in", "inner", arguments={"text": "x"}),
            task("after", "echo", depends="in", arguments={"text": "{{tasks.in.outputs.parameters.both}}"}),
        ),
        inner,
        writer("w", "{{inputs.parameters.text}}", inputs=inputs("text")),
        echo(),
    )
    outcome = run(tmp_path, document)
    assert log_text(tmp_path, "after") == "<x>!"
    assert outcome.outputs["in.w"] == {"out": "<x>"}


def test_root_failure_is_in_the_nested_dag(tmp_path: Path) -> None:
    document = workflow(
        dag(task("in", "inner")), dag(task("w", "exits", arguments={"code": "4"}), name="inner"), exits()
    )
    outcome = run(tmp_path, document)
    assert (outcome.failed, outcome.exit_code, outcome.command_exit_code) == ("in.w", 4, 4)
    assert outcome.message.startswith("in.w failed: exit code 4")


def test_steps_run_group_by_group(tmp_path: Path) -> None:
    groups = [
        [task("a"), task("b", "exits")],
        [task("c", "echo", arguments={"text": "{{steps.a.outputs.parameters.out}}"})],
    ]
    document = workflow({"name": "main", "steps": groups}, writer("a", "from a"), exits(), echo())
    outcome = run(tmp_path, document)
    assert outcome.phase == "Succeeded"
    assert log_text(tmp_path, "c") == "from a"
    assert outcome.nodes["c"].started_at >= max(outcome.nodes[k].finished_at for k in "ab")  # type: ignore[type-var,operator]


@pytest.mark.parametrize(
    ("accepted", "phase"),
    [({"failed": True}, "Succeeded"), ({"failed": False, "error": True}, "Failed"), ({}, "Failed")],
)
def test_a_failure_that_continue_on_accepts_is_no_failure(
    tmp_path: Path, accepted: dict[str, bool], phase: str
) -> None:
    bad = task("bad", "exits", arguments={"code": "{{item}}"}, withItems=[0, 3], continueOn=accepted)
    outcome = run(tmp_path, workflow({"name": "main", "steps": [[bad], [task("next", "exits")]]}, exits()))
    assert outcome.phase == phase
    assert phases(outcome)["bad.1"] == "Failed"
    assert phases(outcome).get("next") == ("Succeeded" if phase == "Succeeded" else "Omitted")


ACCEPTING = {"continueOn": {"failed": True}}


@pytest.mark.parametrize(
    ("bad", "after", "phase", "after_phase"),
    [
        (ACCEPTING, {}, "Succeeded", "Succeeded"),
        (ACCEPTING, {"when": "1 == 2"}, "Failed", "Skipped"),
        ({}, ACCEPTING, "Succeeded", "Omitted"),
        ({}, {}, "Failed", "Omitted"),
    ],
    ids=["accepted, then run", "accepted, and inherited by a skipped leaf", "inherited and accepted", "not accepted"],
)
def test_tasks_of_a_dag_inherit_the_failure_that_another_accepts(
    tmp_path: Path, bad: dict[str, Any], after: dict[str, Any], phase: str, after_phase: str
) -> None:
    # As assessDAGPhase in Argo's dag.go: continueOn is for dependent tasks, and for the phase of a leaf.
    first = task("bad", "exits", arguments={"code": "3"}, **bad)
    outcome = run(tmp_path, workflow(dag(first, task("after", "exits", dependencies=["bad"], **after)), exits()))
    assert (outcome.phase, phases(outcome)["after"]) == (phase, after_phase)


def test_container_as_entrypoint(tmp_path: Path) -> None:
    document = workflow(leaf("main", PRINT, "{{inputs.parameters.p}}", inputs=inputs("p")), parameters={"p": "given"})
    assert run(tmp_path, document).phase == "Succeeded"
    assert log_text(tmp_path, "main") == "given"


def exit_handler() -> dict[str, Any]:
    return leaf("bye", PRINT, "{{workflow.status}}", "{{workflow.failures}}", "{{workflow.outputs.parameters.best}}")


def globally(value: str) -> dict[str, Any]:
    template = writer("a", value)
    template["outputs"]["parameters"][0]["globalName"] = "best"
    return template


@pytest.mark.parametrize(("code", "status"), [("0", "Succeeded"), ("3", "Failed")])
def test_exit_handler_gets_status_and_failures(tmp_path: Path, code: str, status: str) -> None:
    main = dag(task("a"), task("b", "exits", depends="a", arguments={"code": code}))
    outcome = run(tmp_path, workflow(main, globally("0.5"), exits(), exit_handler(), onExit="bye"))
    first, rest = log_text(tmp_path, "onExit").split(" ", 1)
    failures, best = rest.rsplit(" ", 1)
    assert (first, best, str(outcome.phase)) == (status, "0.5", status)
    listed = json.loads(json.loads(failures))
    assert (listed or []) == [] if code == "0" else (listed[0]["displayName"], listed[0]["phase"]) == ("b", "Failed")
    assert outcome.command_exit_code == int(code)


def test_a_failed_exit_handler_fails_the_workflow(tmp_path: Path) -> None:
    bye = dag(task("release", "exits"), task("report", "exits", arguments={"code": "1"}), name="bye")
    outcome = run(tmp_path, workflow(dag(task("a", "exits")), exits(), bye, onExit="bye"))
    assert outcome.phase == "Failed"
    assert outcome.failed == "onExit.report"
    assert outcome.message.startswith("the exit handler: report failed: exit code 1")


def test_failed_exit_handler_does_not_hide_the_first_failure(tmp_path: Path) -> None:
    main = dag(task("a", "exits", arguments={"code": "2"}))
    outcome = run(tmp_path, workflow(main, exits(), leaf("bye", EXIT, "1"), onExit="bye"))
    assert (outcome.failed, outcome.exit_code) == ("a", 2)


def test_only_the_document_is_needed(tmp_path: Path) -> None:
    """Neither the compiler nor what it is made with is loaded to run a document."""
    code = (
        "import json, sys; from pathlib import Path; from workflows import runner; "
        "before = {m.split('.')[0] for m in sys.modules}; "
        "runner.start(json.loads(sys.argv[1]), Path(sys.argv[2]), name='x'); "
        "print('pydantic' in before, [m for m in ('hera', 'workflows.compile', 'torch') if m in sys.modules])"
    )
    document = json.dumps(workflow(dag(task("a")), writer("a", "1")))
    words = [sys.executable, "-c", code, document, str(tmp_path / "run")]
    got = subprocess.run(words, capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "False []"


def test_observers_see_each_phase(tmp_path: Path) -> None:
    recorder = Recorder()
    run(
        tmp_path,
        workflow(dag(task("a"), task("b", "exits", depends="a", when="1 == 2")), writer("a", "1"), exits()),
        observer=recorder,
    )
    assert recorder.phases == [("a", "Running"), ("a", "Succeeded"), ("b", "Skipped")]
    assert recorder.ends == ["Succeeded"]
