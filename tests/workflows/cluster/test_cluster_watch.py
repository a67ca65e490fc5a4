"""A run is followed through all that happens to connections, over real HTTP."""

from __future__ import annotations

import pytest
from argo_run import NAME, ArgoRun
from faults import RETRY_AFTER
from kubernetes_server_resources import from_status

from workflows.cluster import kubernetes_api, watch
from workflows.cluster.backoff import new_backoff
from workflows.cluster.failures import ApiFailure
from workflows.cluster.watch import Deleted, changes, follow
from workflows.cluster.workflows_api import Scope


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def followed(workflows_api, told, waits):
    return lambda: follow(workflows_api(), NAME, told.append, new_backoff(waits.append))


def overloaded(_) -> None:
    raise from_status(503)


def verbs(cluster) -> list[str]:
    return [call.verb for call in cluster.calls]


def test_every_change_is_seen_until_the_end(cluster, followed):
    run = ArgoRun()
    cluster.put(run.now())
    states = followed()
    assert watch.phase(next(states)) == ""
    cluster.put(run.step("tune", "Running").now())
    assert watch.phase(next(states)) == "Running"
    cluster.put(run.phase("Succeeded").now())
    assert watch.phase(next(states)) == "Succeeded"
    assert next(states, None) is None


def test_a_run_that_has_ended_is_not_watched(cluster, followed):
    cluster.put(ArgoRun().phase("Failed").now())
    assert [watch.phase(state) for state in followed()] == ["Failed"]
    assert verbs(cluster) == ["get"]


@pytest.mark.parametrize("kind", ["reset", "timeout", "429", "500", "truncated"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_no_fault_of_one_call_loses_a_change(kind, call, cluster, followed, waits, monkeypatch):
    """Calls: get, list, watch, and the watch after that one was ended."""
    for module, name, seconds in (
        (kubernetes_api, "READ", 0.3),
        (kubernetes_api, "SLACK", -0.7),
        (watch, "WATCH", 1),
        (watch, "STARTING", 1),
    ):
        monkeypatch.setattr(module, name, seconds)
    run = ArgoRun()
    cluster.put(run.phase("Running").now())
    cluster.faults.fail(kind, call)
    states = followed()
    seen = [watch.phase(next(states))]
    cluster.end_watches()
    for phase in ("Error", "Running", "Pending", "Running", "Failed"):
        # Phases that do not end are told apart by their message.
        cluster.put(run.phase("Failed" if phase == "Failed" else "Running", phase).now())
        state = next(states)
        seen.append(state["status"]["message"])
        cluster.end_watches()
    assert seen == ["Running", "Error", "Running", "Pending", "Running", "Failed"]
    assert next(states, None) is None
    assert cluster.faults.happened
    assert kind != "429" or any(wait >= RETRY_AFTER for wait in waits)


def test_what_the_server_has_forgotten_is_listed_anew(cluster, followed):
    run = ArgoRun()
    cluster.put(run.phase("Running").now())

    def forget(call) -> None:
        if call.verb == "watch" and verbs(cluster).count("watch") == 1:
            cluster.put(run.phase("Succeeded").now())
            cluster.compact()

    cluster.every_call.append(forget)
    states = followed()
    next(states)
    cluster.put(run.phase("Running", "more").now())
    next(states)
    assert watch.phase(next(states)) == "Succeeded"
    assert verbs(cluster) == ["get", "list", "watch", "list"]


def test_a_watch_goes_on_from_the_last_version_not_from_the_beginning(cluster, followed):
    run = ArgoRun()
    cluster.put(run.phase("Running").now())
    states = followed()
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


def test_lost_contact_is_told_and_given_up_in_the_end(cluster, workflows_api, told):
    cluster.put(ArgoRun().phase("Running").now())
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    states = follow(workflows_api(), NAME, told.append, new_backoff(wait, clock=lambda: now[0]))
    next(states)
    cluster.every_call.append(overloaded)
    with pytest.raises(ApiFailure, match="Service Unavailable"):
        next(states)
    assert len(told) == 1 and "trying again" in told[0]
    assert watch.MAX_DISCONNECTED_SECONDS < now[0] < watch.MAX_DISCONNECTED_SECONDS + 60


def test_contact_that_comes_back_is_told(cluster, followed, told, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    run = ArgoRun()
    cluster.put(run.phase("Running").now())
    states = followed()
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
    assert "trying again" in told[0] and "answers again" in told[1]


def test_a_deleted_run_ends_the_watch(cluster, followed):
    cluster.put(ArgoRun().phase("Running").now())
    states = followed()
    next(states)
    record = cluster.get(cluster.resource("workflows"), "argotune", NAME)
    cluster.every_call.append(lambda call: call.verb == "watch" and cluster.delete(record, {}))
    with pytest.raises(Deleted, match="was deleted"):
        next(states)


def test_who_may_not_watch_is_told_at_once(cluster, followed, waits):
    cluster.put(ArgoRun().phase("Running").now())
    cluster.forbidden.add(("watch", "workflows"))
    states = followed()
    next(states)
    with pytest.raises(ApiFailure, match="tester may not watch workflows in namespace argotune"):
        next(states)
    assert waits == []


def test_a_run_that_no_controller_takes_up_is_told_once(cluster, followed, told, monkeypatch):
    monkeypatch.setattr(watch, "STARTING", 0)
    monkeypatch.setattr(watch, "WATCH", 0)
    run = ArgoRun()
    cluster.put(run.now())
    states = followed()
    next(states)
    cluster.every_call.append(
        lambda call: verbs(cluster).count("watch") == 4 and cluster.put(run.phase("Succeeded").now())
    )
    next(states)
    assert len(told) == 1 and "workflow-controller" in told[0]


def test_runs_come_and_go(cluster, workflows_api, told, waits):
    first, second = ArgoRun(name="one").phase("Running"), ArgoRun(name="two").phase("Running")
    cluster.put(first.now())
    seen = changes(workflows_api(), Scope(), told.append, new_backoff(waits.append))
    event = next(seen)
    assert (event.kind, event.object["metadata"]["name"]) == ("ADDED", "one")

    def forget(call) -> None:
        if call.verb == "watch":
            cluster.every_call.clear()
            cluster.put(second.now())
            cluster.delete(cluster.get(cluster.resource("workflows"), "argotune", "one"), {})
            cluster.compact()

    cluster.every_call.append(forget)
    found = [(event.kind, event.object["metadata"]["name"]) for event in (next(seen), next(seen))]
    assert found == [("DELETED", "one"), ("ADDED", "two")]
