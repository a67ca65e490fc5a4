"""Small random models of all tested architectures on the real vLLM, with an adapter of all their layers.

One process serves them one after another: about 2 CPU seconds for each.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from random_models import ARCHITECTURES, ERRORS, INEXACT, NOT_ON_VLLM_CPU, save_vllm_model

from steps.serving.vllm_probe import find_interpreter

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("vllm_next_token.py")
TOLERANCE = 0.05
"""Of logarithms of probabilities; Gemma 2 differs by 0.02, all others by less than 0.0001."""


@pytest.fixture(scope="module")
def predictions(vllm: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """By architecture: what transformers and vLLM predict."""
    root = tmp_path_factory.mktemp("models")
    expected = {kind: save_vllm_model(root / kind, kind) for kind in ARCHITECTURES}
    for kind, found in expected.items():
        (root / kind / "prompt.json").write_text(json.dumps(found["prompt"]))
    command = [find_interpreter(Path(vllm)), str(SCRIPT), *(str(root / kind) for kind in ARCHITECTURES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == len(ARCHITECTURES), done.stderr[-4000:]
    return {kind: (expected[kind], json.loads(line)) for kind, line in zip(ARCHITECTURES, lines, strict=True)}


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind not in {*NOT_ON_VLLM_CPU, *INEXACT}])
def test_vllm_predicts_what_transformers_predicts(predictions: dict[str, tuple[Any, Any]], kind: str) -> None:
    expected, found = predictions[kind]
    assert "error" not in found, found["error"]
    for name in ("base", "tuned"):
        for token, value in found[name].items():
            assert value == pytest.approx(expected[name][int(token)], abs=TOLERANCE)
    distance = max(abs(value - expected["base"][int(token)]) for token, value in found["tuned"].items())
    assert distance > 4 * TOLERANCE, "the adapter changes nothing"


@pytest.mark.parametrize("kind", NOT_ON_VLLM_CPU)
def test_vllm_rejects_the_others(predictions: dict[str, tuple[Any, Any]], kind: str) -> None:
    assert ERRORS[kind] in predictions[kind][1].get("error", "no error")
