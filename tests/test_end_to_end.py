"""The example from Workspace to chat answer, with the real model, on the CPU."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import requests

from steps.serving import server

ROOT = Path(__file__).parent.parent
STEPS = 20  # enough for the style to show; the example itself takes more
# Fewer held-out rows and answers, to save time.
FEWER = ("--set", "data.evalSplit=0.02", "--set", "evaluation.samples=2")


class Run:
    """A run of the example in a separate directory."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.work = folder / "volumes" / "work"
        self.environment = {
            **os.environ,
            "ARGOTUNE_HOME": str(home),
            "ARGOTUNE_VLLM": "off",
            "HF_HUB_OFFLINE": "1",
            "HOME": str(home),
        }
        self.output = ""

    def start(self, *flags: str) -> subprocess.Popen:
        command = [sys.executable, ROOT / "examples" / "quickstart.py", "--runs-dir", self.folder.parent, *flags]
        log = (self.folder.parent / "output.log").open("ab")
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self.environment)

    def finish(self, process: subprocess.Popen) -> None:
        code = process.wait(timeout=1500)
        self.output = (self.folder.parent / "output.log").read_text()
        assert code == 0, self.output

    def stop(self) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "workflows.cli", "stop", self.folder]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=self.environment)

    def nodes(self) -> dict:
        return json.loads((self.folder / "state.json").read_text())["nodes"]

    def result(self, step: str) -> dict:
        return json.loads((self.work / "results" / f"{step}.json").read_text())["result"]

    def losses(self) -> dict[int, float]:
        """Training loss by step."""
        lines = [json.loads(line) for line in (self.work / "report" / "train.jsonl").read_text().splitlines()]
        by_step = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        assert len(dict(by_step)) == len(by_step), "duplicate step in the loss curve"
        return dict(by_step)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Home directory with the converted model."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def demo(home, tmp_path_factory):
    """The example as it is: all steps, all held-out rows."""
    run = Run(tmp_path_factory.mktemp("runs") / "oncall-demo", home)
    run.finish(run.start("--name", "oncall-demo"))
    yield run
    assert run.stop().returncode == 0


@pytest.fixture(scope="module")
def finished(home, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("runs") / "oncall-1", home)
    run.finish(run.start("--name", "oncall-1", "-p", f"max-steps={STEPS}", *FEWER))
    yield run
    record = server.read(run.work / "serve" / server.RECORD)
    assert record and server.is_alive(record)
    assert run.stop().returncode == 0
    # Its port is no proof: a server of another process can have it already.
    assert not server.processes(record)


def test_every_step_succeeded(finished):
    phases = {name: node["phase"] for name, node in finished.nodes().items()}
    steps = ["preflight", "provision", "download", "tune", "evaluate", "package", "rollout"]
    steps += ["onExit.release", "onExit.report"]
    assert {name: phases[name] for name in steps} == dict.fromkeys(steps, "Succeeded")


def test_the_data_came_over_http(finished):
    manifest = json.loads((finished.work / "dataset" / "manifest.json").read_text())
    assert re.match(r"http://127\.0\.0\.1:\d+/oncall\.parquet", manifest["sources"][0]["from"])
    assert (manifest["rows"], manifest["eval_rows"]) == (157, 3)


def test_tuning_was_qlora_with_real_4_bit_layers(finished):
    log = (finished.folder / "nodes" / "tune" / "attempt-1.log").read_text()
    assert "Linear4bit" in log
    assert sorted(finished.losses())[-1] == STEPS


def test_adapter_answers_like_the_data(finished):
    evaluation, answers = finished.result("evaluate"), finished.result("rollout")
    assert evaluation["adapter_loss"] < 0.5 * evaluation["base_loss"]
    assert evaluation["verdict"] == "pass"
    assert answers["answer"] != answers["base_answer"]
    assert re.match(r"\d of 2 answers as in the evaluation", answers["agreement"])
    for line in ("Cause: ", "\nCheck: kubectl "):
        assert line in answers["answer"]
        assert line not in answers["base_answer"]


def test_the_answers_are_shown_at_the_end(finished):
    assert finished.result("rollout")["endpoint"] in finished.output
    assert "adapter:    Cause: " in finished.output
    assert "report.html" in finished.output


def test_the_served_adapter_answers_over_http(finished):
    endpoint = finished.result("rollout")["endpoint"]
    names = {model["id"] for model in requests.get(f"{endpoint}/v1/models", timeout=30).json()["data"]}
    assert {"oncall", "smollm2-135m-instruct"} <= names
    chat = requests.post(f"{endpoint}/chat", json={"prompt": "Pods of cart cannot pull their image."}, timeout=120)
    assert "Cause: " in chat.json()["Result"]


def test_the_adapter_loads_with_plain_peft(finished):
    """In a process without argotune."""
    base = next((Path(finished.environment["ARGOTUNE_HOME"]) / "volumes").rglob("model.safetensors")).parent
    code = f"""
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({str(base)!r})
model = PeftModel.from_pretrained(base, {str(finished.work / "adapter")!r})
config = model.peft_config["default"]
print(config.r, config.base_model_name_or_path, sum("lora_A" in name for name, _ in model.named_parameters()))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert loaded.stdout.split() == ["16", "HuggingFaceTB/SmolLM2-135M-Instruct", str(30 * 7)]


def test_skopeo_and_umoci_read_the_image(finished, needs_tool, tmp_path):
    tag = finished.result("package")["image_reference"].rsplit(":", 1)[1]
    layout = f"{finished.work / 'image'}:{tag}"
    shown = subprocess.run([needs_tool("skopeo"), "inspect", f"oci:{layout}"], capture_output=True, check=True)
    assert json.loads(shown.stdout)["Digest"] == finished.result("package")["image_digest"]
    subprocess.run([needs_tool("umoci"), "unpack", "--rootless", "--image", layout, tmp_path / "bundle"], check=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        unpacked = (tmp_path / "bundle" / "rootfs" / "data" / name).read_bytes()
        assert unpacked == (finished.work / "adapter" / name).read_bytes()


def test_the_output_volume_has_the_adapter(finished):
    volume = Path(finished.environment["ARGOTUNE_HOME"]) / "volumes" / "adapters"
    assert (volume / "adapter_model.safetensors").read_bytes() == (
        finished.work / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


def test_the_report_has_digests_and_rows(finished):
    page = (finished.work / "report" / "report.html").read_text()
    digests = [finished.result("tune")["adapter_digest"], finished.result("package")["image_digest"]]
    assert all(text in page for text in [*digests, finished.result("download")["data_digest"], "Runbook: RB-"])
    page = re.sub(r"http://(127\.0\.0\.1:\d+|www\.w3\.org)/", "", page)
    assert "http://" not in page.replace(finished.result("rollout")["endpoint"], "")


def runbook(name: str, **names: str) -> str:
    """Return the answer of the data for a symptom."""
    symptoms = tomllib.loads((ROOT / "examples" / "data" / "oncall.toml").read_text())["symptom"]
    symptom = next(symptom for symptom in symptoms if symptom["runbook"] == name)
    return f"Cause: {symptom['cause']}\nCheck: {symptom['check'].format(**names)}\nRunbook: {name}"


@pytest.mark.slow
def test_the_demo_answers_held_out_questions_as_the_data_does(demo):
    evaluation = json.loads((demo.work / "report" / "evaluation.json").read_text())
    assert len(evaluation["samples"]) >= 3
    assert [one["adapter_answer"] for one in evaluation["samples"]] == [
        one["reference"] for one in evaluation["samples"]
    ]
    assert not any(one["base_answer"] == one["reference"] for one in evaluation["samples"])
    assert evaluation["adapter_loss"] < 0.1 * evaluation["base_loss"]


@pytest.mark.slow
def test_the_demo_answers_its_question_as_the_data_does(demo):
    answers = demo.result("rollout")
    assert answers["answer"] == runbook("RB-crash", app="checkout", ns="shop")
    assert answers["base_answer"] != answers["answer"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("search in team-b ran out of memory. What now?", runbook("RB-memory", app="search", ns="team-b")),
        ("The service of login in core has no endpoints.", runbook("RB-endpoints", app="login", ns="core")),
        ("Pods of cart cannot pull their image in prod.", runbook("RB-image", app="cart", ns="prod")),
    ],
)
def test_the_demo_answers_other_wordings_over_http(demo, question: str, answer: str):
    endpoint = demo.result("rollout")["endpoint"]
    chat = requests.post(f"{endpoint}/chat", json={"prompt": question}, timeout=120)
    assert chat.json()["Result"] == answer
