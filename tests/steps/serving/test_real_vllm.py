"""The real vLLM, started by the rollout with its middleware: what clients reach, and changes of adapters."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fault_table import Row, check
from request_variants import NUM_VARIANTS, send, variants
from tiny_model import save_adapter, save_model
from vllm_server import CONTEXT, WAIT_SECONDS, VllmServer, desired, evaluate_adapter, replace_adapter, wait_for

from steps.rollout import rollout_local
from steps.runtime.errors import StepError
from steps.serving import server, vllm_flags
from steps.serving.allowlist import ALLOWED
from steps.serving.vllm_probe import find_interpreter

pytestmark = pytest.mark.slow
NUM_REQUESTS, NUM_SWAPS = 1200, 4
NAMES = ("one", "two", "three")
OWN = [{"name": "tuned", "path": "adapter"}]
"""The adapter of the run, which its evaluation has measured."""
SECTION = "vLLM: "
FINISHED = 'finished_reason="length"'
RESULTS = {
    "requests of clients": ("500 spellings of management routes", "sent by a client", "none reaches a route"),
    "failed load": ("load adapter", "rejected by vLLM", "the old adapter stays live; the next load succeeds"),
    "swaps under load": (
        "1200 requests and 4 swaps",
        "another client never reads its stream",
        "no request fails; no swap waits for that client",
    ),
    "replaced adapter": (
        "chat completion",
        "its adapter was replaced",
        "is aborted; the client gets 503",
    ),
    "long prompt": ("chat completion", "a prompt beyond the context, behind full batches", "rejected at once"),
    "closed connections": ("chat completion", "the client hangs up", "the generation is cancelled"),
    "dropped adapter": (
        "rollout",
        "vLLM answers without the adapter's weights",
        "rejected by probabilities; the old adapter is live again",
    ),
    "failed start": ("rollout", "vLLM exits", "fails with vLLM's error; the old server stays live"),
}
"""Rows of docs/FAULTS.md, each verified by a test: call, fault and outcome."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny-llama"), CONTEXT)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {name: save_adapter(base, folder / name, seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def running(
    vllm: str, base: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """A server that serves ``one`` at first."""
    work = tmp_path_factory.mktemp("rollout")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARGOTUNE_VLLM", vllm)
        patch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        patch.setattr(rollout_local, "MAX_TOKENS", 16)  # a random model never ends its answer
        started = VllmServer(base, work)
        try:
            assert started.start(adapters["one"]).server == "vllm"
            yield started
        finally:
            for name in (server.STARTING, server.RECORD):
                stopped = server.stop(work / "serve" / name)
                assert stopped is None or server.processes(stopped) == []


@pytest.fixture(autouse=True)
def serves_one(running: VllmServer, adapters: dict[str, Path]) -> None:
    """Every test begins with ``one``, whichever ran before."""
    if running.versions() != {"tuned": desired(adapters["one"]).version}:
        running.deploy([desired(adapters["one"])])


def record(result: str) -> None:
    """Compare the row of a verified result with docs/FAULTS.md."""
    check(SECTION + result, [Row("vLLM", *RESULTS[result])])


def test_no_variant_reaches_a_management_route(running: VllmServer) -> None:
    before = len(running.routes())
    responses = {request: send(running.port, request) for request in variants(13, NUM_VARIANTS)}
    reached = [(method, path) for method, path, port in running.routes()[before:] if port]
    assert [route for route in reached if route[0] not in ALLOWED.get(route[1], ())] == []
    accepted = {request.split()[0] for request, status in responses.items() if 0 < status < 400}
    assert accepted <= {b"GET"}, "only the state is readable"
    assert list(running.versions()) == ["tuned"]
    record("requests of clients")


def test_the_recorder_sees_the_routes_of_vllm(running: VllmServer, adapters: dict[str, Path]) -> None:
    """Without this the test above could pass because nothing is recorded."""
    assert running.chat(model="tuned").status_code == 200
    running.deploy([desired(adapters["two"])])
    clients = {(method, path) for method, path, port in running.routes() if port}
    middleware = {(method, path) for method, path, port in running.routes() if not port}
    assert ("POST", "/v1/chat/completions") in clients
    assert {("POST", "/v1/load_lora_adapter"), ("POST", "/v1/completions"), ("GET", "/health")} <= middleware


def test_adapters_are_swapped_and_rolled_back(running: VllmServer, adapters: dict[str, Path]) -> None:
    first = running.start(adapters["one"])
    started = running.record
    second = running.start(adapters["two"])
    assert second.answer != first.answer and second.base_answer == first.base_answer
    assert running.record.pid == started.pid, "the server was restarted for an adapter"
    answer = running.chat(model="tuned").json()
    assert answer["model"] == desired(adapters["two"]).version
    listed = requests.get(f"{running.endpoint}/v1/models").json()["data"]
    assert [(model["id"], model["parent"]) for model in listed] == [("tiny", None), ("tuned", "tiny")]
    assert running.start(adapters["one"]) == first, "not rolled back"
    wait_for(lambda: ("POST", "/v1/unload_lora_adapter") in {route[:2] for route in running.routes()})


def test_a_failed_load_leaves_the_old_adapter_live(
    running: VllmServer, adapters: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    """The checks before the load accept rank 64; vLLM has memory for rank 8."""
    before = running.chat(model="tuned").json()
    wide = save_adapter(base, tmp_path / "wide", rank=64)
    with pytest.raises(StepError, match=r"the server cannot load it: .*rank"):
        running.deploy([desired(wide)])
    after = running.chat(model="tuned").json()
    assert after["choices"][0]["message"] == before["choices"][0]["message"]
    assert after["model"] == desired(adapters["one"]).version
    running.deploy([desired(adapters["two"])])
    assert running.chat(model="tuned").json()["model"] == desired(adapters["two"]).version
    record("failed load")


def test_an_invalid_adapter_never_reaches_vllm(running: VllmServer, adapters: dict[str, Path], tmp_path: Path) -> None:
    invalid = Path(shutil.copytree(adapters["two"], tmp_path / "invalid"))
    config = json.loads((invalid / "adapter_config.json").read_text())
    (invalid / "adapter_config.json").write_text(json.dumps(config | {"r": 10**9}))
    with pytest.raises(StepError, match="rank"):
        running.deploy([desired(invalid)])
    assert running.versions() == {"tuned": desired(adapters["one"]).version}


def test_no_request_fails_while_adapters_are_swapped(
    running: VllmServer, adapters: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A client of each adapter never reads its stream."""
    known = {desired(folder).version for folder in adapters.values()}

    def ask(number: int) -> str:
        response = running.chat(model="tuned", max_tokens=1 + number % 4)
        return str(response.json().get("model")) if response.status_code == 200 else response.text

    def open_stuck_stream() -> socket.socket:
        return running.open(model="tuned", stream=True, logprobs=True, top_logprobs=20)

    stuck = [open_stuck_stream()]
    wait_for(lambda: running.metric("vllm:num_requests_running") > 0)
    swaps, per_swap = [], NUM_REQUESTS // (NUM_SWAPS + 1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(NUM_REQUESTS)]
        for number in range(NUM_SWAPS):
            concurrent.futures.wait(answers[: per_swap * (number + 1)])
            start = time.monotonic()
            running.deploy([desired(adapters[NAMES[(number + 1) % len(NAMES)]])])
            swaps.append(time.monotonic() - start)
            stuck.append(open_stuck_stream())
        models = [answer.result() for answer in answers]
    assert [model for model in models if model not in known] == []
    assert len(set(models)) == len(NAMES), "the requests did not see all adapters"
    state = running.versions()
    assert state == {"tuned": desired(adapters[NAMES[NUM_SWAPS % len(NAMES)]]).version}
    for client in stuck:
        client.close()
    record("swaps under load")
    with capsys.disabled():
        print(f"\n{len(models)} requests, 0 failed; swaps in s: {', '.join(f'{one:.2f}' for one in swaps)}")


def test_a_request_without_a_model_is_answered_by_the_adapter(running: VllmServer, adapters: dict[str, Path]) -> None:
    version = desired(adapters["one"]).version
    assert running.chat().json()["model"] == version
    assert running.chat(model=None).json()["model"] == version
    prompt = {"prompt": "Hello", "max_tokens": 1}
    assert requests.post(f"{running.endpoint}/v1/completions", json=prompt).json()["model"] == version
    assert requests.post(f"{running.endpoint}/chat", json=prompt).json()["model"] == version
    assert running.chat(model="tiny").json()["model"] == "tiny"
    running.deploy([])
    assert running.chat().status_code == 200, "the base model answers without adapters"


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_cancels_the_generation(running: VllmServer, stream: bool) -> None:
    """A request that ends by itself would count as finished."""
    finished = running.metric("vllm:request_success_total", FINISHED)
    connection = running.open(model="tuned", stream=stream, n=4)
    wait_for(lambda: running.metric("vllm:num_requests_running") > 0)
    connection.close()
    wait_for(lambda: running.metric("vllm:num_requests_running") == 0)
    assert running.metric("vllm:request_success_total", FINISHED) == finished, "it was not cancelled"
    record("closed connections")


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_of_a_replaced_adapter_is_aborted(
    running: VllmServer, adapters: dict[str, Path], stream: bool
) -> None:
    """Its client does not read: vLLM would generate the answer to its end for nobody."""
    connection = running.open(model="tuned", stream=stream, n=4)
    wait_for(lambda: running.metric("vllm:num_requests_running") > 0)
    running.deploy([desired(adapters["two"])])
    finished = running.metric("vllm:request_success_total", FINISHED)  # the test request of the new adapter too
    wait_for(lambda: running.metric("vllm:num_requests_running") == 0)
    assert running.metric("vllm:request_success_total", FINISHED) == finished, "it was not aborted"
    connection.settimeout(WAIT_SECONDS)
    assert connection.recv(4096).startswith(b"HTTP/1.1 200" if stream else b"HTTP/1.1 503")
    connection.close()
    record("replaced adapter")


def test_a_prompt_beyond_the_context_is_rejected_at_once(running: VllmServer) -> None:
    """Also while all places of the batch are taken: it does not wait behind them."""
    connections = [running.open(model="tuned", n=16) for _ in range(3)]
    wait_for(lambda: running.metric("vllm:num_requests_waiting") > 0)
    response = running.chat(model="tuned", messages=[{"role": "user", "content": "x y " * CONTEXT}])
    error = response.json()["error"]
    assert response.status_code == 400 and "context length" in error["message"]
    assert running.metric("vllm:num_requests_waiting") > 0
    for connection in connections:
        connection.close()
    wait_for(lambda: running.metric("vllm:num_requests_running") == 0)
    record("long prompt")


def test_the_evaluated_adapter_is_accepted(running: VllmServer, base: Path, adapters: dict[str, Path]) -> None:
    evaluate_adapter(running.work, base, adapters["two"])
    result = running.start(adapters["two"], adapters=OWN)
    assert "probabilities of" in result.agreement and "not compared" not in result.agreement
    replace_adapter(running.work, adapters["three"])
    with pytest.raises(StepError, match="is not the evaluated adapter: "):
        running.start(adapters["three"], adapters=OWN)
    wait_for(lambda: running.versions() == {"tuned": desired(adapters["two"]).version})


def test_an_adapter_that_vllm_drops_is_rejected(
    running: VllmServer, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without weights it answers as the base model does, and the evaluated one with almost the same words."""
    weak = save_adapter(base, tmp_path / "weak", seed=5, scale=0.003)
    evaluate_adapter(running.work, base, weak)
    accepted = running.start(weak, adapters=OWN)
    live = running.versions()
    replace_adapter(running.work, save_adapter(base, tmp_path / "dropped", seed=5, scale=0.0))
    with pytest.raises(StepError, match="is not the evaluated adapter: probabilities of ") as error:
        running.start(weak, adapters=OWN)
    wait_for(lambda: running.versions() == live)
    record("dropped adapter")
    with capsys.disabled():
        print(f"\naccepted: {accepted.agreement}\nrejected: {error.value.message}")


def test_a_vllm_that_cannot_start_fails_with_its_error(running: VllmServer, adapters: dict[str, Path]) -> None:
    before = running.record
    arguments = {"max-model-len": 10**6}
    with pytest.raises(
        StepError, match=r"the vllm server exited before it answered: .*max_model_len \(1000000\) is greater"
    ):
        running.start(adapters["one"], server_arguments=arguments)
    assert running.record == before
    assert server.is_healthy(before)
    assert not (running.work / "serve" / server.STARTING).exists()
    record("failed start")


def test_reserved_flags_are_those_of_vllm(vllm: str) -> None:
    """A renamed flag would not be rejected any more; another flag must not be rejected as an abbreviation."""
    code = """
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
for action in make_arg_parser(FlexibleArgumentParser())._actions:
    print(*action.option_strings, sep="\\n")
"""
    done = subprocess.run([find_interpreter(Path(vllm)), "-c", code], capture_output=True, text=True, check=True)
    flags = {line.removeprefix("--") for line in done.stdout.splitlines() if line.startswith("--")}
    assert len(flags) > 100, done.stderr
    assert set(vllm_flags.RESERVED) <= flags
    rejected = {flag.removeprefix("no-") for flag in flags if vllm_flags.reserved_name(flag)}
    assert {flag for flag in rejected if not flag.startswith("data-parallel")} == set(vllm_flags.RESERVED)
