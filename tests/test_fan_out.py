"""The learning rate search example, compiled as a user does and run locally with a tiny model."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import trainable_model

from steps.models.adapter import adapter_digest

ROOT = Path(__file__).parents[1]
RATES = ["1e-9", "2e-2", "as before"]
"""One that is too small to learn, one that learns, and an invalid one."""
pytestmark = pytest.mark.slow


class Run:
    """A run of the compiled example in a separate directory."""

    def __init__(self, folder: Path, urls: list[str]) -> None:
        self.folder = folder / "runs" / "search"
        self.work = self.folder / "volumes" / "work"
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "ARGOTUNE_HOME": str(folder / "home"),
            "ARGOTUNE_RUNS": str(folder / "runs"),
            "ARGOTUNE_VLLM": "off",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            # Settings of the test; all others are the example's.
            "ARGOTUNE_MODEL__REPOSITORY": "/mnt/models/tiny",
            "ARGOTUNE_DATA__URLS": json.dumps(urls),
            "ARGOTUNE_TUNING__METHOD": "lora",
            "ARGOTUNE_EVALUATION__SAMPLES": "0",
        }
        self.environment.pop("ARGOTUNE_SITE", None)
        self.document = folder / "fan_out.yaml"
        compiled = self.call(ROOT / "examples" / "learning_rate_fan_out.py")
        self.document.write_text(compiled.stdout)
        assert compiled.returncode == 0, compiled.stderr

    def call(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=1500, check=False)

    def argotune(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return self.call("-m", "workflows.cli", *words)

    def nodes(self) -> dict[str, Any]:
        nodes: dict[str, Any] = json.loads((self.folder / "state.json").read_text())["nodes"]
        return nodes

    def outputs(self, node: str) -> dict[str, str]:
        outputs: dict[str, str] = self.nodes()[node]["outputs"]
        return outputs


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("fan-out")
    trainable_model.make_model(folder / "home" / "volumes" / "argotune-models" / "tiny")
    trainable_model.write_rows(folder / "data" / "rows.parquet", trainable_model.chat_rows(40))
    with serve_folder(folder / "data") as address:
        search = Run(folder, [f"{address}/rows.parquet"])
        parameters = {"learning-rates": json.dumps(RATES), "max-steps": "4", "batch-size": "8"}
        flags = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        done = search.argotune("run", search.document, "--name", "search", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    yield search
    search.argotune("stop", search.folder)


def test_rates_are_tuned_in_separate_directories_one_after_the_other(run: Run) -> None:
    assert {path.name for path in (run.work / "candidates").iterdir()} == {"1e-9", "2e-2"}
    curves = {rate: trainable_model.curve(run.work / "candidates" / rate) for rate in RATES[:2]}
    assert {rate: len(curve) for rate, curve in curves.items()} == {"1e-9": 4, "2e-2": 4}
    nodes = run.nodes()
    spans = [
        (nodes[f"search.candidate.{n}"]["started_at"], nodes[f"search.candidate.{n}"]["finished_at"]) for n in (0, 1)
    ]
    assert spans[0][1] <= spans[1][0]


def test_a_failed_candidate_does_not_fail_the_search(run: Run) -> None:
    nodes = run.nodes()
    assert nodes["search.candidate.2.tune"]["phase"] == "Failed"
    assert "learning-rate" in nodes["search.candidate.2.tune"]["message"]
    assert (nodes["search.candidate"]["phase"], nodes["search"]["phase"]) == ("Failed", "Succeeded")
    assert run.outputs("search.promote")["compared"] == "2"


def test_the_best_evaluation_is_promoted_packaged_and_served(run: Run) -> None:
    losses = {rate: float(run.outputs(f"search.candidate.{n}")["adapter-loss"]) for n, rate in enumerate(RATES[:2])}
    assert losses["2e-2"] < losses["1e-9"]
    promoted = run.outputs("search.promote")
    assert promoted["candidate"] == "2e-2"
    assert float(promoted["adapter-loss"]) == losses["2e-2"] < 0.5 * float(promoted["base-loss"])
    digest = run.outputs("search.candidate.1.tune")["adapter-digest"]
    assert promoted["adapter-digest"] == run.outputs("search")["adapter-digest"] == digest
    assert adapter_digest(run.work / "adapter") == digest
    manifest = json.loads((run.work / "image" / "index.json").read_text())["manifests"][0]["digest"]
    assert run.outputs("package")["image-digest"] == manifest
    image = json.loads((run.work / "image" / "blobs" / manifest.replace(":", "/")).read_text())
    assert image["annotations"]["dev.argotune.adapter.digest"] == digest
    models = requests.get(f"{run.outputs('rollout')['endpoint']}/v1/models", timeout=300).json()["data"]
    assert "oncall" in {model["id"] for model in models}


def test_the_report_is_that_of_the_winner(run: Run) -> None:
    page = (run.work / "report" / "report.html").read_text()
    assert run.outputs("search.promote")["adapter-digest"] in page
    evaluation = json.loads((run.work / "report" / "evaluation.json").read_text())
    assert evaluation["adapter_loss"] == float(run.outputs("search.promote")["adapter-loss"])
