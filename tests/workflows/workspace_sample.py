"""A valid Workspace, its parts, and the problem reported after a part was replaced."""

from pathlib import Path

import pytest

from workflows.errors import InvalidInput, Problem
from workflows.spec import load

GOOD = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: tuned
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector:
    matchLabels:
      app: tuned
tuning:
  preset:
    name: phi-3-mini-128k-instruct
  method: qlora
  input:
    urls:
      - https://data.example.com/train.parquet?download=true
  output:
    image: registry.example.com/team/adapter:1.0
inference:
  preset:
    name: phi-3-mini-128k-instruct
  adapters:
    - source:
        name: other
        image: registry.example.com/team/other:1.0
pipeline:
  data:
    evalSplit: 0.1
"""
URL = "      - https://data.example.com/train.parquet?download=true\n"
TUNING_PRESET = "tuning:\n  preset:\n    name: phi-3-mini-128k-instruct\n"
INFERENCE_PRESET = "inference:\n  preset:\n    name: phi-3-mini-128k-instruct\n"
OUTPUT_IMAGE = "    image: registry.example.com/team/adapter:1.0\n"
OTHER_IMAGE = "        image: registry.example.com/team/other:1.0\n"
INPUT = "  input:\n    urls:\n" + URL
TUNING = GOOD[GOOD.index("tuning:") : GOOD.index("inference:")]
INFERENCE = GOOD[GOOD.index("inference:") : GOOD.index("pipeline:")]
PIPELINE = GOOD[GOOD.index("pipeline:") :]
TEN_ADAPTERS = "".join(
    f"    - source:\n        name: a{n}\n        image: registry.example.com/team/other:1.0\n" for n in range(10)
)


def write(folder: Path, text: str) -> Path:
    """Write ``text`` to a file, and return its path."""
    file = folder / "workspace.yaml"
    file.write_text(text)
    return file


def problems(file: Path) -> list[Problem]:
    """Return the problems of an invalid file."""
    with pytest.raises(InvalidInput) as caught:
        load(file)
    return caught.value.problems


def check_broken(folder: Path, old: str, new: str, path: str, words: str, good: str = GOOD) -> None:
    """Check that replacing ``old`` by ``new`` gives one problem, at ``path``, on the line that ends with ``# <--``."""
    assert good.count(old), "the text to replace does not exist"
    text = good.replace(old, new, 1)
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# <--")]
    file = write(folder, text)
    [problem] = problems(file)
    assert (problem.path, problem.file) == (path, str(file))
    assert words in problem.message
    assert not marked or problem.line == marked[0]
