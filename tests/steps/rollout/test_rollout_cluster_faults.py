"""Every call of the rollout on a cluster fails once in every way, and the process is killed after each of them.

The calls are those of the cluster's API and those of the servers: the state of their adapters, their models, their
answers. In the end the desired release answers, and a release was live all the time.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fault_table import by_name, check, sweep, sweep_names
from faults import SILENT_SECONDS, Faults, kill_proof, read_timeout
from faulty_proxy import FaultyProxy
from kubernetes_server import KubernetesServer
from rollout_sample import NAME, hurry, run, settings_of, version
from serving_cluster import NAMESPACE, Servers, mounted_images

from steps.kubernetes import client as kubernetes_client
from steps.rollout import rollout_cluster
from steps.rollout.settings import Settings
from steps.serving import serving_client

OWN_POD = {"containers": [{"name": "mine", "image": "mine:1", "ports": [{"containerPort": 5000}]}]}
NUMBER = itertools.count()


@dataclass(frozen=True)
class Way:
    """A rollout after that of the adapter ``one``, and the expected result."""

    change: dict[str, Any]
    answers: set[str]
    """Adapters that answer, by any server."""
    deployments: frozenset[str] = frozenset({NAME})


WAYS = {
    "hot load": Way({"image": "two"}, {"two"}),
    "rolling update": Way({"image": "wide"}, {"wide"}),
    "image volumes": Way({"image": "two", "hot_load": False}, {"two"}),
    "canary": Way({"image": "two", "canary": 50}, {"one", "two"}, frozenset({NAME, f"{NAME}-canary"})),
    "custom pod": Way({"template": {"spec": OWN_POD}, "adapters": [], "preset": "", "model": "-"}, set()),
}


@dataclass
class Service:
    """A cluster that serves the adapter ``one``, and the settings of the next rollout."""

    cluster: KubernetesServer
    servers: Servers
    settings: Settings
    proxy: FaultyProxy
    """Proxy for all requests of the rollout to servers."""

    def roll_out(self, faults: Faults, kind: str, call: int, name: str = "") -> str:
        faults.calls.clear()
        if kind:
            faults.fail(kind, call, name)
        outcome = "succeeds on retry"
        if kind == "killed":
            assert not kill_proof(faults, lambda: run(self.settings)), "nothing was killed"
            outcome = "succeeds after a restart"
        run(self.settings)
        return f"{outcome}; only the desired adapters are served"

    def look(self, way: Way, images: dict[str, str]) -> None:
        """Check that the desired release is live and recorded, and that there are no other objects."""
        document = self.cluster.read("configmaps", f"{NAME}-releases", NAMESPACE)
        assert document
        known = json.loads(document["data"]["releases.json"])
        recorded = [known[one] for one in ("current", "previous", "canary") if known.get(one)]
        maps = {one["metadata"]["name"] for one in self.cluster.all("configmaps")}
        assert maps == {*(f"{NAME}-adapters-{one['revision']}" for one in recorded), f"{NAME}-releases"}
        assert {one["metadata"]["name"] for one in self.cluster.all("deployments")} == way.deployments
        assert len(self.cluster.all("pods")) == len(self.servers.ready()) == len(way.deployments)
        assert self.servers.min_ready[NAME] == 1, "no server was ready for a while"
        mounts = [bool(mounted_images(pod)) for pod in self.cluster.all("pods")]
        assert mounts == [not self.settings.hot_load] * len(mounts)
        pods = self.servers.pods.values()
        model = "tuned" if way.answers else "base"
        answers = {serving_client.complete(pod.address, model, "x", 5, 120) for pod in pods}
        assert answers == ({f"I am {version(images, one)}." for one in way.answers} or {"I am base."})


@pytest.fixture
def service(tmp_path: Path, images: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``with service(way) as one``: a new cluster; the timeouts are those of calls to it and to its servers."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    hurry(monkeypatch)

    @contextmanager
    def make(way: Way, *, cluster_seconds: float = 30, server_seconds: float = 0) -> Iterator[Service]:
        with pytest.MonkeyPatch.context() as patch, KubernetesServer() as cluster, FaultyProxy() as proxy:
            cluster.image_volumes = "on"
            patch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", user="rollout")))
            servers = Servers(cluster, tmp_path / f"pods-{next(NUMBER)}")
            patch.setattr(rollout_cluster, "service_address", lambda _, name: servers.service(name))
            settings = functools.partial(settings_of, tmp_path / "work", images, replicas=1)
            try:
                run(settings())
                patch.setattr(kubernetes_client, "TIMEOUT", (30, cluster_seconds))
                session = serving_client.session
                patch.setattr(serving_client, "session", lambda *key: proxy.client(session(*key), server_seconds))
                yield Service(cluster, servers, settings(**way.change), proxy)
            finally:
                servers.close()

    return make


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hot load", "rolling update", "image volumes", "canary"])
def test_calls_of_the_cluster(service: Callable[..., Any], images: dict[str, str], way: str) -> None:
    def attempt(kind: str, call: int, name: str) -> tuple[Faults, str]:
        with service(WAYS[way], cluster_seconds=read_timeout(kind)) as one:
            outcome = one.roll_out(one.cluster.faults, kind, call, name)
            one.look(WAYS[way], images)
            return one.cluster.faults, outcome

    rows = sweep(f"rollout, {way}", by_name(attempt), max_repeats=2, sample=1)
    check(f"rollout on a cluster: {way}", rows, sample=True)


@pytest.mark.parametrize(
    ("way", "calls"),
    [
        ("hot load", {"GET /adapters", "POST /v1/chat/completions"}),
        ("canary", {"GET /adapters", "POST /v1/chat/completions"}),
        ("custom pod", {"GET /v1/models", "POST /v1/chat/completions"}),
    ],
)
def test_calls_of_its_servers(service: Callable[..., Any], images: dict[str, str], way: str, calls: set[str]) -> None:
    def attempt(kind: str, name: str) -> tuple[Faults, str]:
        with service(WAYS[way], server_seconds=SILENT_SECONDS if kind == "timeout" else 0) as one:
            outcome = one.roll_out(one.proxy.faults, kind, 1, name)
            seen = list(one.proxy.faults.calls)
            one.look(WAYS[way], images)
            one.proxy.faults.calls[:] = seen
            return one.proxy.faults, outcome

    rows = sweep_names(f"rollout, {way}", attempt, sample=3)
    assert {row.call for row in rows} == calls
    check(f"rollout on a cluster: {way}, requests to servers", rows, sample=True)
