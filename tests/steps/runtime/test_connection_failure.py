"""A proxy between a client and its server: the cause is reported, and only what can pass is tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import fault_table
import pytest
import yaml
from fault_table import Row
from scripted_server import ScriptedServer, response

from steps.data import fetch
from steps.data.locations import hub
from steps.data.locations.location import HubLocation
from steps.kubernetes import client
from steps.models import model_hub
from steps.oci import reference, registry
from steps.preflight import data_checks, model_checks
from steps.runtime import connection_failure
from steps.runtime.errors import BadInput, StepError
from workflows.cluster import kubernetes_api
from workflows.cluster.failures import ApiFailure

LOGIN, BROKEN, FORBIDDEN = "407 Proxy Authentication Required", "502 Bad Gateway", "403 Forbidden"
ADVICE = {LOGIN: "USER:PASSWORD@HOST:PORT", FORBIDDEN: "NO_PROXY", BROKEN: ""}


class Proxy:
    """A proxy that answers CONNECT, and requests over plain http, with one status."""

    def __init__(self) -> None:
        self.status, self.requests = LOGIN, list[str]()
        self.server = ScriptedServer(self.respond)

    def respond(self, method: str, target: str, headers: Mapping[str, str]) -> bytes:
        self.requests.append(f"{method} {target}")
        return response(b"", self.status)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, docker_config: Path) -> Iterator[Proxy]:
    proxy = Proxy()
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy.server.url)
    for name in ("NO_PROXY", "no_proxy", "HF_TOKEN", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    with proxy.server:
        yield proxy


def no_wait(_: float) -> None:
    pass


def kubeconfig(folder: Path) -> str:
    path = folder / "kubeconfig"
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    content = {
        **{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [context]},
        "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example:6443"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def pull(folder: Path) -> object:
    return registry.pull_image(reference.parse("registry.example/app:1"), folder / "image", wait=no_wait)


def download(folder: Path) -> object:
    return fetch.fetch_all(["https://data.example/a.parquet?sig=hush"], folder / "data", wait=no_wait)


def list_dataset(folder: Path) -> object:
    return hub.pin(HubLocation("org/rows", "main", ""), False)


def check_data(folder: Path) -> object:
    [found] = data_checks.check_urls(["https://data.example/a.parquet?sig=hush"], wait=no_wait)
    if isinstance(found, StepError):
        raise found
    return found


def get_pods(folder: Path) -> object:
    return client.connect(no_wait).get(client.PODS, "p", "default")


def get_workflow(folder: Path) -> object:
    return kubernetes_api.connect(str(folder / "kubeconfig"), None, "default", no_wait).get("w")


CLIENTS: dict[str, tuple[Callable[[Path], object], int]] = {
    "registry: pull": (pull, 5),
    "download: URL": (download, 5),
    "download: hub dataset": (list_dataset, 1),
    "preflight: data": (check_data, 3),
    "steps: Kubernetes API": (get_pods, 6),
    "command line: Kubernetes API": (get_workflow, 2),
}
"""Each with its requests, and the number of attempts for a failure that can pass."""


@pytest.mark.parametrize("status", [LOGIN, BROKEN, FORBIDDEN])
def test_the_cause_is_reported_and_tried_again_where_it_can_pass(
    proxy: Proxy, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.status = status
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path))
    for name, (request, attempts) in CLIENTS.items():
        proxy.requests.clear()
        with pytest.raises((StepError, ApiFailure)) as caught:
            request(tmp_path)
        error = caught.value
        assert status[:3] in str(error) and ADVICE[status] in str(error), (name, str(error))
        assert "hush" not in str(error), name
        assert (len(proxy.requests) > 1) is (status == BROKEN and attempts > 1), (name, proxy.requests)
        if isinstance(error, StepError):
            assert isinstance(error, BadInput) is (status != BROKEN), name


def test_the_outcomes_are_documented() -> None:
    permanent, passing = (
        "fails at the first attempt, with the cause and the fix",
        "is retried; the error has the cause",
    )
    rows = [
        Row(name, "CONNECT", status, permanent if status != BROKEN else passing)
        for name in CLIENTS
        for status in (LOGIN, FORBIDDEN, BROKEN)
    ]
    fault_table.check("behind a proxy", rows)


def test_the_hub_is_unreachable_behind_a_proxy(proxy: Proxy) -> None:
    failure = model_hub._probe("https://hub.example")
    assert failure and failure.is_permanent and "requires a login (407" in failure.reason
    assert len(proxy.requests) == 1
    assert "login (407" in str(next(model_checks.check("", "org/model", "main", no_wait)))
    assert len(proxy.requests) == 2
    proxy.status = BROKEN
    failure = model_hub._probe("https://hub.example")
    assert failure and not failure.is_permanent and "the proxy cannot reach the server (502" in failure.reason
    assert len(proxy.requests) == 4


def test_httpx_reports_the_same_cause(proxy: Proxy) -> None:
    import httpx2

    with pytest.raises(httpx2.ProxyError) as caught:
        httpx2.Client(proxy=proxy.server.url).get("https://hub.example")
    assert isinstance(model_hub._classify(caught.value), model_hub.HubUnreachable)
    assert connection_failure.classify(caught.value).is_permanent


def test_a_login_is_required_for_plain_http_too(proxy: Proxy, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="407") as caught:
        fetch.fetch_all(["http://data.example/a.parquet"], tmp_path, wait=no_wait)
    assert "USER:PASSWORD" in caught.value.fix
    assert len(proxy.requests) == 1
