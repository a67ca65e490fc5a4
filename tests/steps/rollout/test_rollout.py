from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from free_ports import free_port
from registry_fixture import Registry
from tiny_model import save_adapter, save_model

from steps.models.adapter import adapter_digest
from steps.oci import reference
from steps.oci.oci_layout import build_image
from steps.oci.registry import push_image
from steps.rollout import rollout_local as step
from steps.rollout.settings import Settings
from steps.rollout.step import rollout
from steps.runtime.errors import BadInput, StepError
from steps.serving import server
from steps.serving.desired_adapters import DesiredAdapter
from steps.serving.server import PortInUse, Server

QUESTION = "What do you say?"
TOKENS = 24


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters, ``one`` and ``two``."""
    folder = tmp_path_factory.mktemp("adapters")
    save_adapter(base, folder / "one", seed=2)
    save_adapter(base, folder / "two", seed=3)
    return folder


@pytest.fixture(autouse=True)
def transformers_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOTUNE_VLLM", "off")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(step, "MAX_TOKENS", TOKENS)  # a random model never ends its answer


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "work"
    for name in (server.STARTING, server.RECORD):
        server.stop(tmp_path / "work" / "serve" / name, grace=0)


@pytest.fixture
def settings(work: Path, base: Path, adapters: Path) -> Callable[..., Settings]:
    """Settings that serve ``one``; arguments replace them."""

    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = {
            "work": work,
            "preset": "tiny",
            "model": str(base),
            "adapters": [{"name": "one", "path": str(adapters / "one")}],
            "question": QUESTION,
            "deadline_seconds": 600,
        }
        return Settings(**values | changes)

    return make


def running(work: Path) -> Server:
    record = server.read(work / "serve" / "server.json")
    assert record is not None
    return record


def ask(endpoint: str, model: str, path: str = "/v1/chat/completions") -> requests.Response:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    return requests.post(endpoint + path, json=body)


def version(folder: Path, name: str) -> str:
    """Return the model name in an adapter's answers."""
    return DesiredAdapter(name, adapter_digest(folder)).version


def directly(base: Path, adapter: Path | None, question: str = QUESTION) -> str:
    """Return the greedy answer of transformers and PEFT without a server."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=TOKENS, do_sample=False)
    return str(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.slow
def test_base_and_adapters_answer(
    settings: Callable[..., Settings], work: Path, base: Path, adapters: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(adapters / "one", work / "adapter")
    sources = [{"name": "one", "path": "adapter"}, {"name": "two", "path": str(adapters / "two")}]
    float32 = {"dtype": "float32"}  # the default depends on the processor
    requested = settings(adapters=sources, server_arguments=float32)
    result = rollout(requested)
    first = running(work)
    assert (result.endpoint, result.server) == (first.endpoint, "transformers")
    assert result.answer and result.answer != result.base_answer

    listed = requests.get(f"{result.endpoint}/v1/models").json()
    assert listed["object"] == "list"
    assert [(model["id"], model.get("parent")) for model in listed["data"]] == [
        ("tiny", None), ("one", "tiny"), ("two", "tiny")
    ]  # fmt: skip
    for model, adapter in (("tiny", None), ("one", adapters / "one"), ("two", adapters / "two")):
        answer = ask(result.endpoint, model).json()
        assert answer["model"] == (version(adapter, model) if adapter else model)
        assert answer["choices"][0]["message"]["content"] == directly(base, adapter)

    chat = requests.post(f"{result.endpoint}/chat", json={"prompt": QUESTION, "max_tokens": TOKENS})
    assert chat.json() == {"Result": result.answer, "model": version(adapters / "one", "one")}
    loading = {"lora_name": "x", "lora_path": str(adapters / "one")}
    assert requests.post(f"{result.endpoint}/v1/load_lora_adapter", json=loading).status_code == 404

    unknown = ask(result.endpoint, "someone/else")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model")
    question = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1}
    nameless = requests.post(f"{result.endpoint}/v1/chat/completions", json=question)
    assert nameless.json()["model"] == version(adapters / "one", "one"), "the first adapter answers"
    assert requests.post(f"{result.endpoint}/reset").status_code == 404

    assert rollout(requested) == result
    assert running(work) == first, "the server was restarted without a change"
    output = capfd.readouterr().out
    assert "the server already serves these adapters" in output
    assert result.agreement == "not compared: the adapter was not evaluated"
    assert result.agreement in output

    evaluated(work, base, adapters / "one")
    assert rollout(requested).agreement.startswith("3 of 3 answers as in the evaluation")
    evaluated(work, base, adapters / "two")
    with pytest.raises(StepError, match=r"is not the evaluated adapter: \d+% of the words"):
        rollout(requested)
    assert running(work) == first, "the live server was replaced"
    assert ask(result.endpoint, "one").json()["choices"][0]["message"]["content"] == result.answer
    (work / "report" / "evaluation.json").unlink()

    changed = rollout(settings(adapters=list(reversed(sources)), server_arguments=float32))
    second = running(work)
    assert (second.pid, changed.endpoint) == (first.pid, result.endpoint), "the server was restarted for an adapter"
    assert second.models == ["tiny", "two", "one"]
    chat = requests.post(f"{result.endpoint}/chat", json={"prompt": QUESTION, "max_tokens": TOKENS})
    assert chat.json()["model"] == version(adapters / "two", "two"), "the first adapter answers"
    assert changed.answer == ask(changed.endpoint, "two").json()["choices"][0]["message"]["content"]
    assert changed.base_answer == result.base_answer
    assert changed.answer != result.answer

    moved = rollout(settings(adapters=sources, preset="other"))
    third = running(work)
    assert not server.is_alive(second)
    assert moved.endpoint != changed.endpoint
    assert ask(moved.endpoint, "other").status_code == 200
    assert not (work / "serve" / "starting.json").exists()
    assert len(list((work / "serve").glob("adapters-*.json"))) == 1

    server.stop(work / "serve" / "server.json")
    assert not server.is_alive(third)
    assert not server.processes(third)


def evaluated(work: Path, base: Path, adapter: Path) -> None:
    """Write the parts of an evaluation that the rollout reads."""
    samples = [
        {
            "question": question,
            "messages": [{"role": "user", "content": question}],
            "base_answer": directly(base, None, question),
            "adapter_answer": directly(base, adapter, question),
        }
        for question in ("Number 1?", "Number 2?", "What colour?")
    ]
    content = {"adapter_digest": adapter_digest(work / "adapter"), "max_new_tokens": TOKENS, "samples": samples}
    (work / "report").mkdir(exist_ok=True)
    (work / "report" / "evaluation.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_a_server_that_cannot_start_leaves_the_old_one_live(
    settings: Callable[..., Settings], work: Path, base: Path, tmp_path: Path
) -> None:
    result = rollout(settings(adapters=[]))
    assert result.answer == result.base_answer != "", "without adapters the base answers"
    before = running(work)
    corrupt = tmp_path / "corrupt"
    shutil.copytree(base, corrupt)
    (corrupt / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["NoSuchModel"]}))
    with pytest.raises(StepError, match=r"server exited before it answered: AttributeError: .*NoSuchModel"):
        rollout(settings(adapters=[], model=str(corrupt)))
    assert running(work) == before
    assert server.is_healthy(before)
    assert not (work / "serve" / "starting.json").exists()


def test_a_requested_port_in_use_is_an_error(settings: Callable[..., Settings], work: Path) -> None:
    with socket.create_server((server.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} is in use by another process"):
            rollout(settings(port=port, adapters=[]))
    assert not (work / "serve" / "starting.json").exists()


def test_invalid_settings_are_reported_together_before_a_start(
    settings: Callable[..., Settings], work: Path, adapters: Path
) -> None:
    broken = work / "broken"
    broken.mkdir(parents=True)
    with pytest.raises(BadInput) as refused:
        rollout(settings(adapters=[{"name": "a", "path": "nowhere"}, {"name": "b", "path": "broken"}]))
    assert "adapter a: adapter_config.json and adapter_model.safetensors not found in" in str(refused.value)
    assert "adapter b: adapter_config.json" in str(refused.value)
    with pytest.raises(BadInput, match="duplicate model name tiny"):
        rollout(settings(adapters=[{"name": "tiny", "path": str(adapters / "one")}]))
    with pytest.raises(BadInput, match="a name and one of path and image are required"):
        rollout(settings(adapters=[{"name": "x", "path": "a", "image": "b"}]))
    with pytest.raises(BadInput, match="port: set the port of the rollout"):
        rollout(settings(server_arguments={"port": 1}))
    assert not (work / "serve").exists()


def test_an_adapter_image_is_pulled(
    settings: Callable[..., Settings], open_registry: Registry, work: Path, adapters: Path, tmp_path: Path
) -> None:
    image = f"{open_registry.address}/team/one:1"
    build_image(adapters / "one", tmp_path / "layout", "1", {})
    push_image(tmp_path / "layout", reference.parse(image))
    (served,) = step._service(settings(adapters=[{"name": "pulled", "image": image}])).adapters
    assert served.digest == adapter_digest(adapters / "one") == adapter_digest(Path(served.path))
    with pytest.raises(BadInput, match="image reference 'Not An Image'"):
        rollout(settings(adapters=[{"name": "pulled", "image": "Not An Image"}]))


def test_a_killed_step_continues_with_the_starting_server(settings: Callable[..., Settings], work: Path) -> None:
    # On the first free port, the server would end if that of another process comes first, and another would start.
    requested = settings(port=free_port())
    sources = json.dumps([{"name": source.name, "path": source.path} for source in requested.adapters])
    flags = ["--work", str(work), "--preset", "tiny", "--model", requested.model, "--adapters", sources]
    flags += ["--port", str(requested.port)]
    killed = subprocess.Popen([sys.executable, "-m", "steps.rollout", *flags])
    end = time.monotonic() + 300
    while not ((starting := server.read(work / "serve" / server.STARTING)) and starting.pid):
        assert time.monotonic() < end and killed.poll() is None, "no server was started"
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    result = rollout(requested)
    assert running(work).mark == starting.mark
    assert result.endpoint == starting.endpoint


def test_program_writes_output_parameters(settings: Callable[..., Settings], work: Path, tmp_path: Path) -> None:
    requested = settings()
    flags = ["--work", str(work), "--preset", "tiny", "--model", requested.model, "--question", QUESTION]
    folders = ["--adapter-folders", json.dumps([requested.adapters[0].path])]
    arguments = ["--server-arguments", '{"max-model-len": 512}']
    done = subprocess.run(
        [sys.executable, "-m", "steps.rollout", *flags, *folders, *arguments],
        env={**os.environ, "ARGOTUNE_OUTPUTS": str(tmp_path / "outputs")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outputs = {file.name: file.read_text() for file in (tmp_path / "outputs").iterdir()}
    assert set(outputs) == {"endpoint", "answer", "base-answer", "server", "agreement", "question"}
    assert server.is_healthy(running(work)), "the server exited with the step"
    assert outputs["endpoint"] == running(work).endpoint
    assert "not supported by the transformers server, ignored: max-model-len" in done.stdout
