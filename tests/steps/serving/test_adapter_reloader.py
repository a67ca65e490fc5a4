from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from adapter_server import RunningServer
from registry_fixture import Registry
from tiny_model import save_adapter, save_model

from steps.models.adapter import adapter_digest
from steps.oci import reference
from steps.oci.oci_layout import build_image
from steps.oci.registry import push_image
from steps.runtime.errors import StepError, TimeLimit
from steps.serving import adapter_reloader, desired_adapters, serving_client
from steps.serving.desired_adapters import DesiredAdapter


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_reloader, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(adapter_reloader, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(serving_client, "POLL_SECONDS", 0.01)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "adapters.json"


@pytest.fixture
def server(file: Path, tmp_path: Path) -> Iterator[RunningServer]:
    running = RunningServer(file, tmp_path / "pulled")
    yield running
    running.close()


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., DesiredAdapter]:
    def make(name: str = "tuned", content: str = "1") -> DesiredAdapter:
        folder = tmp_path / f"{name}.{content}"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))
        (folder / "adapter_model.safetensors").write_text(content)
        return DesiredAdapter(name, adapter_digest(folder), path=str(folder))

    return make


def deploy(file: Path, server: RunningServer, *adapters: DesiredAdapter) -> None:
    serving_client.write_adapters(file, adapters)
    serving_client.wait_for_adapters(
        server.address, desired_adapters.config_digest(desired_adapters.serialize(adapters)), 120
    )


def ask(server: RunningServer, model: str) -> requests.Response:
    return requests.post(f"{server.address}/v1/chat/completions", json={"model": model, "messages": []}, timeout=120)


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_name_switches_after_the_new_adapter_has_answered(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter]
) -> None:
    assert requests.get(f"{server.address}/ready").status_code == 503, "no adapter is loaded yet"
    one, two = adapter(content="1"), adapter(content="2")
    deploy(file, server, one)
    assert requests.get(f"{server.address}/ready").status_code == 200
    assert ask(server, "tuned").json()["model"] == one.version
    deploy(file, server, two)
    assert ask(server, "tuned").json()["model"] == two.version
    assert [call for call in server.server.calls if "chat" not in call[0]] == [
        ("/v1/load_lora_adapter", one.version),
        ("/v1/completions", one.version),
        ("/v1/load_lora_adapter", two.version),
        ("/v1/completions", two.version),
        ("/v1/unload_lora_adapter", one.version),
    ]
    assert ask(server, one.version).status_code == 404
    listed = requests.get(f"{server.address}/v1/models").json()["data"]
    assert listed == [{"id": "base"}, {"id": "tuned", "parent": "base", "root": two.version}]
    assert requests.post(f"{server.address}/chat", json={"prompt": "x"}).json()["model"] == two.version


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}])
def test_a_request_without_a_model_is_answered_by_the_first_adapter(
    server: RunningServer,
    file: Path,
    adapter: Callable[..., DesiredAdapter],
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, Any],
) -> None:
    monkeypatch.setenv("ARGOTUNE_DEFAULT_MODEL", "base")

    def answering() -> str:
        body = {"messages": [], **model}
        return str(requests.post(f"{server.address}/v1/chat/completions", json=body, timeout=120).json()["model"])

    assert answering() == "base"
    first, second = adapter("a"), adapter("b")
    deploy(file, server, first, second)
    assert answering() == first.version
    deploy(file, server, second, first)
    assert answering() == second.version


def test_the_old_adapter_is_unloaded_after_its_last_response(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter]
) -> None:
    one, two = adapter(content="1"), adapter(content="2")
    deploy(file, server, one)
    server.hold(one.version)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(ask, server, "tuned")
        wait_for(lambda: serving_client.get_state(server.address)["running"].get(one.version))
        serving_client.write_adapters(file, [two])
        wait_for(lambda: serving_client.get_state(server.address)["versions"]["tuned"] == two.version)
        assert ask(server, "tuned").json()["model"] == two.version
        assert ("/v1/unload_lora_adapter", one.version) not in server.server.calls
        server.release(one.version)
        assert slow.result().json()["model"] == one.version
    wait_for(lambda: one.version not in server.server.adapters)


@pytest.mark.parametrize("failure", ["digest", "missing", "load", "mute", "file"])
def test_a_failure_leaves_the_old_adapter_live(
    failure: str, server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter]
) -> None:
    one, two = adapter(content="1"), adapter(content="2")
    deploy(file, server, one)
    says = {
        "digest": "is not sha256:",
        "missing": "No such file",
        "load": "does not fit",
        "mute": "loaded, but does not answer: CUDA error",
        "file": "invalid list of adapters",
    }[failure]
    if failure == "digest":
        (Path(two.path) / "adapter_model.safetensors").write_text("3")
    elif failure == "missing":
        two = dataclasses.replace(two, path=two.path + ".missing")
    elif failure == "load":
        server.server.unloadable.add("tuned")
    elif failure == "mute":
        server.server.mute.add(two.version)
    with pytest.raises(StepError, match=says):
        if failure == "file":
            file.write_text('{"adapter": 1}')
            serving_client.wait_for_adapters(server.address, desired_adapters.config_digest('{"adapter": 1}'), 120)
        deploy(file, server, two)
    assert ask(server, "tuned").json()["model"] == one.version
    assert requests.get(f"{server.address}/ready").status_code == 200, "it is not ready any more"
    assert list(server.server.adapters) == [one.version], "the failed adapter remains loaded"
    if failure in ("load", "mute"):
        server.server.unloadable.clear()
        server.server.mute.clear()
        wait_for(lambda: ask(server, "tuned").json()["model"] == two.version)  # it retries


def test_an_adapter_that_does_not_fit_the_base_is_never_loaded(
    server: RunningServer, file: Path, tmp_path: Path
) -> None:
    base = save_model(tmp_path / "base")
    server.reloader.base = str(base)
    good, bad = save_adapter(base, tmp_path / "good"), save_adapter(base, tmp_path / "bad", seed=3)
    (bad / "adapter_config.json").write_text(
        (bad / "adapter_config.json").read_text().replace('"target_modules": [', '"target_modules": ["(a+)+$",')
    )
    live = DesiredAdapter("tuned", adapter_digest(good), path=str(good))
    deploy(file, server, live)
    with pytest.raises(StepError, match="target_modules must be a list of names"):
        deploy(file, server, DesiredAdapter("tuned", adapter_digest(bad), path=str(bad)))
    assert ask(server, "tuned").json()["model"] == live.version
    loads = [name for path, name in server.server.calls if path == "/v1/load_lora_adapter"]
    assert loads == [live.version]


def test_adapters_wait_until_the_server_is_healthy(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter]
) -> None:
    server.server.healthy = False
    serving_client.write_adapters(file, [adapter()])
    assert requests.get(f"{server.address}/ready").status_code == 503
    with pytest.raises(TimeLimit, match="did not load the adapters within 0 s"):
        serving_client.wait_for_adapters(server.address, "other", 0.1)
    assert server.server.calls == []
    with pytest.raises(StepError, match="the pod exited"):
        serving_client.wait_for_adapters("http://127.0.0.1:9", "other", 20, lambda: "the pod exited")
    server.server.healthy = True
    deploy(file, server, adapter())


def test_several_adapters_change_together(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter]
) -> None:
    deploy(file, server, adapter("a", "1"), adapter("b", "1"))
    new = [adapter("a", "2"), adapter("c", "1")]
    deploy(file, server, *new)
    assert serving_client.list_models(server.address) == ["base", "a", "c"]
    assert set(server.server.adapters) == {one.version for one in new}
    deploy(file, server)
    assert serving_client.list_models(server.address) == ["base"]


def test_an_image_is_pulled_by_digest_and_deleted_when_unloaded(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter], open_registry: Registry, tmp_path: Path
) -> None:
    target = reference.parse(f"{open_registry.address}/team/switch:1")
    build_image(Path(adapter().path), tmp_path / "layout", "1", {})
    digest = push_image(tmp_path / "layout", target)
    desired = DesiredAdapter("pulled", digest, image=f"{target.name}:another-tag")
    deploy(file, server, desired)
    assert server.server.adapters == {desired.version: str(tmp_path / "pulled" / desired.version)}
    missing = dataclasses.replace(desired, digest="sha256:" + "0" * 64)
    with pytest.raises(StepError, match="0000"):
        deploy(file, server, missing)
    assert ask(server, "pulled").json()["model"] == desired.version
    deploy(file, server)
    assert list((tmp_path / "pulled").iterdir()) == []


def test_a_failure_is_not_reported_for_the_next_configuration(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_reloader, "RETRY_SECONDS", 60.0)
    one, two, three = (adapter(content=content) for content in "123")
    deploy(file, server, one)
    server.server.mute.add(two.version)
    with pytest.raises(StepError, match="does not answer"):
        deploy(file, server, two)
    deploy(file, server, three)
    with pytest.raises(StepError, match="does not answer"):
        deploy(file, server, two)
    serving_client.write_adapters(file, [three])  # as the rollout does after a failure
    wait_for(lambda: not serving_client.get_problem(server.address))
    server.server.mute.clear()
    deploy(file, server, two)


def test_an_adapter_withdrawn_during_a_slow_pull_never_becomes_live(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = adapter(content="1"), adapter(content="2")
    deploy(file, server, one)
    pulling, finish, fetch = threading.Event(), threading.Event(), adapter_reloader.fetch_adapter

    def fetch_slowly(desired: DesiredAdapter, folder: Path, images: str = "") -> Path:
        if desired == two:
            pulling.set()
            finish.wait(120)
        return fetch(desired, folder, images)

    monkeypatch.setattr(adapter_reloader, "fetch_adapter", fetch_slowly)
    serving_client.write_adapters(file, [two])
    assert pulling.wait(120)
    serving_client.write_adapters(file, [one])
    finish.set()
    wait_for(lambda: ("/v1/unload_lora_adapter", two.version) in server.server.calls)
    assert ask(server, "tuned").json()["model"] == one.version
    assert list(server.server.adapters) == [one.version]


def test_a_stuck_request_delays_no_change_and_is_cut(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_reloader, "DRAIN_SECONDS", 2.0)
    one, two = (adapter(content=content) for content in "12")
    deploy(file, server, one)
    server.hold(one.version)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        stuck = pool.submit(ask, server, "tuned")
        wait_for(lambda: serving_client.get_state(server.address)["running"].get(one.version))
        start = time.monotonic()
        deploy(file, server, two)
        deploy(file, server, one)  # rolled back: it is live again, so it is not unloaded
        deploy(file, server, two)
        assert ask(server, "tuned").json()["model"] == two.version
        assert not stuck.done() or time.monotonic() - start > 2
        wait_for(lambda: one.version not in server.server.adapters)
        error = stuck.result(120).json()["error"]
        assert error["code"] == 503 and "its adapter was replaced; send it again" in error["message"]
        assert server.server.cancelled == [one.version], "the server still generates its answer"
    assert not serving_client.get_state(server.address)["running"]


def test_the_next_change_ends_an_earlier_drain(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM has one slot more than adapters: the test request of a third one would wait for the stuck client."""
    monkeypatch.setattr(adapter_reloader, "NEXT_CHANGE_SECONDS", 0.1)
    one, two, three = (adapter(content=content) for content in "123")
    deploy(file, server, one)
    server.hold(one.version)
    server.server.max_loras = 2
    with concurrent.futures.ThreadPoolExecutor() as pool:
        stuck = pool.submit(ask, server, "tuned")
        wait_for(lambda: serving_client.get_state(server.address)["running"].get(one.version))
        deploy(file, server, two)
        assert not stuck.done()
        server.hold(two.version)
        another = pool.submit(ask, server, "tuned")
        wait_for(lambda: serving_client.get_state(server.address)["running"].get(two.version))
        deploy(file, server, three)
        assert stuck.result(120).status_code == 503
        assert not another.done(), "it has a minute"
        server.release(two.version)
        assert another.result(120).status_code == 200
    wait_for(lambda: list(server.server.adapters) == [three.version])
    unloads = [name for path, name in server.server.calls if path == "/v1/unload_lora_adapter"]
    assert sorted(unloads) == sorted([one.version, two.version]), "each once"


def test_the_folder_of_a_failed_adapter_is_deleted(
    server: RunningServer, file: Path, adapter: Callable[..., DesiredAdapter], open_registry: Registry, tmp_path: Path
) -> None:
    target = reference.parse(f"{open_registry.address}/team/failed:1")
    build_image(Path(adapter().path), tmp_path / "layout", "1", {})
    desired = DesiredAdapter("pulled", push_image(tmp_path / "layout", target), image=f"{target.name}:1")
    server.server.unloadable.add("pulled")
    with pytest.raises(StepError, match="does not fit"):
        deploy(file, server, desired)
    serving_client.write_adapters(file, [])
    wait_for(lambda: list((tmp_path / "pulled").iterdir()) == [])
