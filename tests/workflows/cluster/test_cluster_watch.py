"""Runs are watched across connection failures, over real HTTP."""

from __future__ import annotations

import pytest
from argo_run import NAME, ArgoRun
from faults import RETRY_AFTER, read_timeout
from kubernetes_server_resources import from_status

from workflows.cluster import kubernetes_api, watch
from workflows.cluster.backoff import new_backoff
from workflows.cluster.failures import ApiFailure
from workflows.cluster.watch import Deleted, follow, watch_changes
from workflows.cluster.workflows_api import Scope


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def states_of_run(workflows_api, messages, waits):
    return lambda: follow(workflows_api(), NAME, messages.append, new_backoff(waits.append))


def overloaded(_) -> None:
    raise from_status(503)


def verbs(cluster) -> list[str]:
    return [call.verb for call in cluster.calls]


def test_every_change_is_seen_until_the_end(cluster, states_of_run):
    run = ArgoRun()
    cluster.put(run.now())
    states = states_of_run()
    assert watch.phase(next(states)) == ""
    cluster.put(run.step("tune", "Running").now())
    assert watch.phase(next(states)) == "Running"
    cluster.put(run.phase("Succeeded").now())
    assert watch.phase(next(states)) == "Succeeded"
    assert next(states, None) is None


def test_a_run_that_has_ended_is_not_watched(cluster, states_of_run):
    cluster.put(ArgoRun().phase("Failed").now())
    assert [watch.phase(state) for state in states_of_run()] == ["Failed"]
    assert verbs(cluster) == ["get"]


@pytest.mark.parametrize("kind", ["reset", "timeout", "429", "500", "truncated"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_failed_request_loses_no_change(kind, call, cluster, states_of_run, waits, monkeypatch):
    """Requests: get, list, watch, and the watch after the first one was ended."""
    for module, name, seconds in (
        (kubernetes_api, "READ", read_timeout(kind)),
        (kubernetes_api, "SLACK", -0.7 if kind == "timeout" else 30),
        (watch, "WATCH_SECONDS", 1),
        (watch, "CONTROLLER_SECONDS", 1),
    ):
        monkeypatch.setattr(module, name, seconds)
    run = ArgoRun()
    cluster.put(run.phase("Running").now())
    cluster.faults.fail(kind, call)
    states = states_of_run()
    seen = [watch.phase(next(states))]
    cluster.end_watches()
    for phase in ("Error", "Running", "Pending", "Running", "Failed"):
        # Phases that are not final are distinguished by their message.
        cluster.put(run.phase("Failed" if phase == "Failed" else "Running", phase).now())
        state = next(states)
        seen.append(state["status"]["message"])
        cluster.end_watches()
    assert seen == ["Running", "Error", "Running", "Pending", "Running", "Failed"]
    assert next(states, None) is None
    assert cluster.faults.happened
    assert kind != "429" or any(wait >= RETRY_AFTER for wait in waits)


def test_an_expired_version_causes_a_new_list(cluster, states_of_run):
    run = ArgoRun()
    cluster.put(run.phase("Running").now())

    def forget(call) -> None:
        if call.verb == "watch" and verbs(cluster).count("watch") == 1:
            cluster.put(run.phase("Succeeded").now())
            cluster.compact()

    cluster.every_call.append(forget)
    states = states_of_run()
    next(states)
    cluster.put(run.phase("Running", "more").now())
    next(states)
    assert watch.phase(next(states)) == "Succeeded"
    assert verbs(cluster) == ["get", "list", "watch", "list"]


def test_a_watch_continues_from_the_last_version(cluster, states_of_run):
    run = ArgoRun()
    cluster.put(run.phase("Running").now())
    states = states_of_run()
    next(states)
    cluster.put(run.phase("Running", "one").now())
    last = next(states)
    cluster.end_watches()
    cluster.put(run.phase("Succeeded").now())
    next(states)
    watches = [call.query for call in cluster.calls if call.verb == "watch"]
    assert all(query["allowWatchBookmarks"] == "true" and query["timeoutSeconds"] for query in watches)
    assert len(watches) == 1 or int(watches[1]["resourceVersion"]) >= int(last["metadata"]["resourceVersion"])
    assert verbs(cluster).count("list") == 1


def test_a_lost_connection_is_reported_and_ends_the_watch_in_the_end(cluster, workflows_api, messages):
    cluster.put(ArgoRun().phase("Running").now())
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    states = follow(workflows_api(), NAME, messages.append, new_backoff(wait, clock=lambda: now[0]))
    next(states)
    cluster.every_call.append(overloaded)
    with pytest.raises(ApiFailure, match="Service Unavailable"):
        next(states)
    assert len(messages) == 1 and "retrying" in messages[0]
    assert watch.MAX_DISCONNECTED_SECONDS < now[0] < watch.MAX_DISCONNECTED_SECONDS + 60


def test_a_reconnection_is_reported(cluster, states_of_run, messages, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    run = ArgoRun()
    cluster.put(run.phase("Running").now())
    states = states_of_run()
    next(states)
    failing = 4

    def refuse(call) -> None:
        nonlocal failing
        if call.verb == "watch" and failing:
            failing -= 1
            overloaded(call)
        if call.verb == "watch":
            cluster.put(run.phase("Succeeded").now())

    cluster.every_call.append(refuse)
    assert watch.phase(next(states)) == "Succeeded"
    assert "retrying" in messages[0] and "reconnected" in messages[1]


def test_a_deleted_run_ends_the_watch(cluster, states_of_run):
    cluster.put(ArgoRun().phase("Running").now())
    states = states_of_run()
    next(states)
    record = cluster.get(cluster.resource("workflows"), "argotune", NAME)
    cluster.every_call.append(lambda call: call.verb == "watch" and cluster.delete(record, {}))
    with pytest.raises(Deleted, match="was deleted"):
        next(states)


def test_a_missing_permission_is_reported_immediately(cluster, states_of_run, waits):
    cluster.put(ArgoRun().phase("Running").now())
    cluster.forbidden.add(("watch", "workflows"))
    states = states_of_run()
    next(states)
    with pytest.raises(ApiFailure, match="tester is not allowed to watch workflows in namespace argotune"):
        next(states)
    assert waits == []


def test_a_missing_controller_is_reported_once(cluster, states_of_run, messages, monkeypatch):
    monkeypatch.setattr(watch, "CONTROLLER_SECONDS", 0)
    monkeypatch.setattr(watch, "WATCH_SECONDS", 0)
    run = ArgoRun()
    cluster.put(run.now())
    states = states_of_run()
    next(states)
    cluster.every_call.append(
        lambda call: verbs(cluster).count("watch") == 4 and cluster.put(run.phase("Succeeded").now())
    )
    next(states)
    assert len(messages) == 1 and "workflow-controller" in messages[0]


def test_runs_are_added_and_deleted(cluster, workflows_api, messages, waits):
    first, second = ArgoRun(name="one").phase("Running"), ArgoRun(name="two").phase("Running")
    cluster.put(first.now())
    seen = watch_changes(workflows_api(), Scope(), messages.append, new_backoff(waits.append))
    event = next(seen)
    assert (event.kind, event.object["metadata"]["name"]) == ("ADDED", "one")

    def forget(call) -> None:
        if call.verb == "watch":
            cluster.every_call.clear()
            cluster.put(second.now())
            cluster.delete(cluster.get(cluster.resource("workflows"), "argotune", "one"), {})
            cluster.compact()

    cluster.every_call.append(forget)
    events = [(event.kind, event.object["metadata"]["name"]) for event in (next(seen), next(seen))]
    assert events == [("DELETED", "one"), ("ADDED", "two")]
