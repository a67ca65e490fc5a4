"""No text of a registry, file or server makes Kubernetes put a variable of a later pod into its arguments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.runtime import entrypoint, termination
from steps.runtime.references import without_references
from workflows.runner import launch

VARIABLES = {"HF_TOKEN": "hush", "": "hush", "A": "hush"}
WORDS = ("$", "$(", "(", ")", "HF_TOKEN", "A", "$$(HF_TOKEN)", " ", "x")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map("".join)


@dataclasses.dataclass(frozen=True)
class Outputs:
    summary: str
    digests: list[str]


@settings(max_examples=200)
@given(TEXTS, TEXTS)
def test_kubernetes_expands_no_output_and_no_message(tmp_path_factory: pytest.TempPathFactory, a: str, b: str) -> None:
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARGOTUNE_OUTPUTS", str(folder))
        entrypoint.publish(Outputs(a, [b]))
    values = [Path(folder, name).read_text() for name in ("summary", "digests")]
    for value in (*values, termination.format_text(a, b), without_references(a + b)):
        # As Argo joins it with other text in an argument.
        assert "hush" not in launch._expand(f"--summary={value}", VARIABLES)


def test_usual_outputs_stay_as_they_are() -> None:
    for text in ("sha256:12", '{"a": "$x (1)"}', "cost: $5"):
        assert without_references(text) == text
