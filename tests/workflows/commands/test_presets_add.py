"""Models by their id: ``argotune presets add`` against a local hub, then ``plan`` and ``compile`` without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from hub_server import COMMIT, HubServer
from workspace_sample import GOOD

CONFIGS = Path(__file__).parents[2] / "presets" / "configs"
QWEN = "Qwen/Qwen3-8B"
Argotune = Callable[..., "CompletedProcess[str]"]
Hub = Callable[..., HubServer]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory, without a site profile."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "ARGOTUNE_SITE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """``hub(repository)`` serves a model's configuration; ``config`` changes it, ``info`` is more of the hub's."""
    servers = []

    def serve(
        repository: str,
        *,
        token: str = "",
        config: dict[str, Any] | None = None,
        files: dict[str, str] | None = None,
        **info: Any,
    ) -> HubServer:
        folder = tmp_path / "repository"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        content = json.loads((CONFIGS / f"{repository.replace('/', '--')}.json").read_text())
        written = {
            "config.json": json.dumps(content | (config or {})),
            "model.safetensors": "not read",
            "tokenizer.json": "{}",
            "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}),
            "generation_config.json": json.dumps({"eos_token_id": [151645, 151643]}),
            **(files or {}),
        }
        for name, text in written.items():
            (folder / name).write_text(text)
        server = HubServer(repository, folder, token)
        server.info = {"gated": False, "cardData": {"license": "apache-2.0"}, **info}
        servers.append(server)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        return server

    yield serve
    for server in servers:
        server.stop()


def qwen(hub: Hub, **changes: Any) -> HubServer:
    return hub(QWEN, safetensors={"parameters": {"BF16": 8190735360}, "total": 8190735360}, **changes)


def workspace(folder: Path, model: str = QWEN, *, served: bool = True, **changes: str) -> Path:
    text = GOOD.replace("phi-3-mini-128k-instruct", model)
    text = text if served else text[: text.index("inference:")] + text[text.index("pipeline:") :]
    for old, new in changes.items():
        text = text.replace(old, new)
    file = folder / "workspace.yaml"
    file.write_text(text)
    return file


def test_a_model_of_the_hub_is_planned_and_compiled(tmp_path: Path, hub: Hub, argotune: Argotune, home: Path) -> None:
    server = qwen(hub)
    file = workspace(tmp_path)
    unknown = tmp_path / "unknown.yaml"
    unknown.write_text(file.read_text().replace(QWEN, f"{QWEN}-Base"))
    refused = argotune("plan", unknown)
    unknown.unlink()
    assert refused.returncode == 2
    assert f"Unsupported tuning preset name {QWEN}-Base" in refused.stderr
    assert f"run argotune presets add {QWEN}-Base" in refused.stderr
    assert "with -o FILE, and copy FILE to the directory presets" in refused.stderr
    assert not server.fetched

    added = argotune("presets", "add", QWEN)
    assert added.returncode == 0, added.stderr
    assert "8.19B parameters, context 40,960, 144 KiB of cache per token, license apache-2.0" in added.stderr
    assert "tune: yes, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj" in added.stderr
    assert sorted(server.fetched) == ["config.json", "generation_config.json", "tokenizer_config.json"]
    server.stop()

    planned = argotune("plan", file, "-o", "json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    estimate = plan["estimate"]
    # NF4 and its constants, and both embeddings in 16 bits.
    assert estimate["tuning"]["weights"] == pytest.approx(
        (6945767424 * (0.5 + 0.127 / 8) + 2 * 1245e6) / 2**30, rel=0.01
    )
    assert estimate["serving"]["weights"] == pytest.approx(15.26)
    assert estimate["serving"]["fits"] and estimate["serving"]["exact"] and estimate["tuning"]["fits"]
    assert estimate["smallestInstanceType"] == "Standard_NV36ads_A10_v5"
    assert estimate["usdPerHour"] > 1

    compiled = argotune("compile", file)
    assert compiled.returncode == 0, compiled.stderr
    workflow = yaml.safe_load(compiled.stdout)
    arguments = json.dumps(workflow)
    assert QWEN in arguments and COMMIT in arguments
    assert "argotune.dev/preset" not in workflow["metadata"].get("labels", {})


def test_the_file_of_another_machine_is_found_next_to_the_workspace(
    tmp_path: Path, hub: Hub, argotune: Argotune, home: Path
) -> None:
    qwen(hub)
    file = tmp_path / "presets" / "qwen.yaml"
    assert argotune("presets", "add", QWEN, "-o", file).returncode == 0
    assert not home.exists()
    preset = yaml.safe_load(file.read_text())
    assert (preset["repository"], preset["revision"], preset["parameters"]) == (QWEN, COMMIT, 8190735360)
    assert (preset["stop_token_ids"], preset["chat_template"]) == ([151645, 151643], "tokenizer")
    checked = argotune("validate", workspace(tmp_path), HF_HUB_OFFLINE="1")
    assert checked.returncode == 0, checked.stderr


def test_a_site_profile_names_a_directory_of_presets(tmp_path: Path, hub: Hub, argotune: Argotune) -> None:
    qwen(hub)
    assert argotune("presets", "add", QWEN, "-o", tmp_path / "site" / "models" / "qwen.yaml").returncode == 0
    profile = tmp_path / "site" / "site.yaml"
    profile.write_text("presets: models\n")
    assert argotune("validate", workspace(tmp_path), "--site", profile).returncode == 0
    assert QWEN in argotune("presets", "ls", "--site", profile, "-o", "name").stdout.splitlines()
    shown = argotune("presets", "show", QWEN, "--site", profile, "-o", "json")
    assert json.loads(shown.stdout)["cache_values"] == 36 * 2 * 8 * 128
    profile.write_text("presets: nowhere\n")
    refused = argotune("validate", workspace(tmp_path), "--site", profile)
    assert refused.returncode == 2
    assert "site.yaml: presets: 'nowhere' is not a directory" in refused.stderr


def test_files_with_presets_in_different_directories_are_valid_together(
    tmp_path: Path, hub: Hub, argotune: Argotune
) -> None:
    qwen(hub)
    for name in ("one", "two"):
        (tmp_path / name / "presets").mkdir(parents=True)
    assert argotune("presets", "add", QWEN, "-o", tmp_path / "one" / "presets" / "qwen3-8b.yaml").returncode == 0
    files = [workspace(tmp_path / "one", served=False), workspace(tmp_path / "two", "phi-4", served=False)]
    done = argotune("validate", *files)
    assert (done.returncode, done.stderr.count("hint: ")) == (0, 2), done.stdout + done.stderr


def test_every_error_of_a_preset_file_is_reported(tmp_path: Path, argotune: Argotune) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "broken.yaml").write_text("repository: a/b\nlayers: many\nlinears: [{name: q}]\n")
    (tmp_path / "presets" / "notes.yaml").write_text("- not a preset\n")
    refused = argotune("validate", workspace(tmp_path, "phi-4"))
    assert refused.returncode == 2
    for words in (
        "broken.yaml: layers: ",
        "broken.yaml: revision: ",
        "broken.yaml: linears.0.inputs: ",
        "argotune presets add",
    ):
        assert words in refused.stderr, words
    assert "notes.yaml" not in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_revision_is_a_preset_of_its_own(tmp_path: Path, hub: Hub, argotune: Argotune) -> None:
    qwen(hub)
    name = f"{QWEN}@{COMMIT}"
    assert argotune("presets", "add", name).returncode == 0
    assert argotune("validate", workspace(tmp_path, name)).returncode == 0
    other = argotune("validate", workspace(tmp_path, f"{QWEN}@v2"))
    assert other.returncode == 2 and f"argotune presets add {QWEN}@v2" in other.stderr
    refused = argotune("presets", "add", f"{QWEN}@v2")
    assert refused.returncode == 2 and "has no revision v2" in refused.stderr


def test_a_gated_model_needs_a_token_here_and_in_the_workspace(tmp_path: Path, hub: Hub, argotune: Argotune) -> None:
    model = "meta-llama/Llama-3.2-1B-Instruct"
    hub(model, token="hf_good", gated="manual", cardData={"license": "llama3.2"})
    refused = argotune("presets", "add", model)
    assert refused.returncode == 2
    assert "is gated: a token of an account that has accepted its license is required" in refused.stderr
    added = argotune("presets", "add", model, HF_TOKEN="hf_good")
    assert added.returncode == 0, added.stderr
    assert "license llama3.2 (gated)" in added.stderr
    refused = argotune("validate", workspace(tmp_path, model))
    assert refused.returncode == 2
    assert "needs a modelAccessSecret with HF_TOKEN key" in refused.stderr


OWN_CODE = {"model_type": "new", "architectures": ["NewForCausalLM"], "auto_map": {"AutoConfig": "c.C"}}
UNKNOWN = {"model_type": "qwen9", "architectures": ["Qwen9ForCausalLM"]}
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4}}
SCOUT = "meta-llama/Llama-4-Scout-17B-16E-Instruct"


@pytest.mark.parametrize(
    ("model", "config", "words"),
    [
        (QWEN, OWN_CODE, "it needs the Python code of its repository"),
        (QWEN, AWQ, "its weights are quantized already (awq)"),
        ("openai/gpt-oss-20b", {}, "its weights are quantized already (mxfp4)"),
        ("mistralai/Devstral-Small-2-24B-Instruct-2512", {}, "its weights are quantized already (fp8)"),
        (SCOUT, {}, "transformers does not load the text part of Llama4ForConditionalGeneration"),
        (QWEN, UNKNOWN, "argotune does not know the layers of model type 'qwen9'"),
    ],
)
def test_models_that_cannot_be_tuned(
    tmp_path: Path, hub: Hub, argotune: Argotune, model: str, config: dict[str, Any], words: str
) -> None:
    hub(model, config=config)
    added = argotune("presets", "add", model)
    assert f"tune: no, {words}" in added.stderr
    refused = argotune("validate", workspace(tmp_path, model, served=False))
    assert refused.returncode == 2
    assert f"tuning.preset.name: {model} cannot be tuned: " in refused.stderr and words in refused.stderr


def test_a_mixture_of_experts_needs_chosen_layers(tmp_path: Path, hub: Hub, argotune: Argotune) -> None:
    model = "Qwen/Qwen3-30B-A3B"
    hub(model)
    assert argotune("presets", "add", model).returncode == 0
    big = "Standard_NC48ads_A100_v4"
    file = workspace(tmp_path, model, Standard_NC24ads_A100_v4=big)
    refused = argotune("validate", file)
    assert refused.returncode == 2
    assert "is a mixture of 128 experts, whose weights are three-dimensional parameters" in refused.stderr
    assert "vLLM does not serve their adapters" in refused.stderr
    assert "LoraConfig.target_modules: [q_proj, k_proj, v_proj, o_proj]" in refused.stderr
    chosen = argotune("plan", file, "--set", 'tuning.targetModules=["q_proj","v_proj"]')
    assert "mixture of" not in chosen.stderr
    for name in ("gate_proj", "all-linear"):
        refused = argotune("plan", file, "--set", f'tuning.targetModules=["q_proj","{name}"]')
        assert refused.returncode == 2 and "target_modules: Qwen/Qwen3-30B-A3B is a mixture" in refused.stderr


def test_rows_longer_than_the_context_are_refused(tmp_path: Path, hub: Hub, argotune: Argotune) -> None:
    qwen(hub)
    assert argotune("presets", "add", QWEN).returncode == 0
    refused = argotune("plan", workspace(tmp_path), "--set", "tuning.maxLength=50000")
    assert refused.returncode == 2
    assert f"50000 exceeds the context of {QWEN} (40960 tokens)" in refused.stderr


def test_adapters_that_vllm_does_not_serve_are_refused(tmp_path: Path, hub: Hub, argotune: Argotune) -> None:
    model = "stabilityai/stablelm-2-1_6b"
    hub(model)
    added = argotune("presets", "add", model)
    assert "serve adapters: no, vLLM 0.32.0 serves no adapters of StableLmForCausalLM" in added.stderr
    file = workspace(tmp_path, model)
    refused = argotune("validate", file)
    assert refused.returncode == 2
    assert "serves no adapters of StableLmForCausalLM" in refused.stderr
    assert argotune("validate", workspace(tmp_path, model, served=False)).returncode == 0
    file.write_text(workspace(tmp_path, model).read_text() + "  rollout: {runtime: transformers}\n")
    assert argotune("validate", file).returncode == 0


@pytest.mark.parametrize("name", ["phi-4", "a/b/c", "../x", "a/b@", "https://hf.co/a/b", "a/b@../c"])
def test_only_ids_are_added(argotune: Argotune, name: str) -> None:
    refused = argotune("presets", "add", name)
    assert refused.returncode == 2
    assert "is not a Hugging Face id" in refused.stderr


def test_a_hub_that_is_no_hub(tmp_path: Path, hub: Hub, argotune: Argotune) -> None:
    server = qwen(hub)
    missing = argotune("presets", "add", "Qwen/Qwen9")
    assert missing.returncode == 2 and "does not exist on the hub" in missing.stderr
    server.info = {"sha": "none"}
    assert "sent an invalid response (it names no commit)" in argotune("presets", "add", QWEN).stderr
    server.info = {}
    (server.folder / "config.json").write_text("[]")
    assert "config.json is not a JSON object" in argotune("presets", "add", QWEN).stderr
    (server.folder / "config.json").write_text("{}")
    assert "config.json names no architecture" in argotune("presets", "add", QWEN).stderr
    (server.folder / "config.json").unlink()
    assert "it has no config.json" in argotune("presets", "add", QWEN).stderr
    server.blocked = True
    assert "sent an invalid response (HTTP 403)" in argotune("presets", "add", QWEN).stderr
    offline = argotune("presets", "add", QWEN, HF_HUB_OFFLINE="1")
    assert offline.returncode == 1 and "HF_HUB_OFFLINE is set" in offline.stderr
    server.stop()
    assert "is unreachable" in argotune("presets", "add", QWEN).stderr


@pytest.mark.parametrize("config", [{"num_key_value_heads": 0}, {"num_local_experts": "x"}, {"hidden_size": -1}])
def test_impossible_sizes_are_refused(hub: Hub, argotune: Argotune, config: dict[str, Any]) -> None:
    hub(QWEN, config=config)
    refused = argotune("presets", "add", QWEN)
    assert refused.returncode == 2 and "unexpected" not in refused.stderr and "Traceback" not in refused.stderr


def test_two_directories_with_different_presets_of_a_name(tmp_path: Path, hub: Hub, argotune: Argotune) -> None:
    qwen(hub)
    files = []
    for name in ("a", "b"):
        folder = tmp_path / name
        assert argotune("presets", "add", QWEN, "-o", folder / "presets" / "qwen.yaml").returncode == 0
        files.append(workspace(folder))
    assert argotune("validate", *files).returncode == 0
    preset = files[1].parent / "presets" / "qwen.yaml"
    preset.write_text(preset.read_text().replace(COMMIT, "b" * 40))
    refused = argotune("compile", *files)
    assert refused.returncode == 2
    assert f"preset {QWEN} differs from that in" in refused.stderr
