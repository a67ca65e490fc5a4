"""Files that are nearly right: each is valid and compiles, or is refused with file and line; no traceback is met.

HYPOTHESIS_PROFILE=long pytest tests/workflows/spec/test_spec_mutations.py   tries for a minute instead of seconds.
"""

import contextlib
import copy
import io
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workspace_sample import GOOD

from workflows import cli
from workflows.compile.kinds import compile_as
from workflows.load_plans import load_plans

DATA = Path(__file__).parents[2] / "data" / "kaito"
EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
CONFIG = (DATA / "kaito_configmap_tuning_phi_3.yaml").read_text()
SEED = (DATA / "v1alpha1" / "v0.3.0_kaito_workspace_tuning_phi_3.yaml").read_text()
TEXTS = [
    GOOD,
    SEED.replace("method: qlora", "method: qlora\n  config: optimized-phi3-tuning") + "\n---\n" + CONFIG,
    *(file.read_text() for file in EXAMPLES),
    *(
        (DATA / f"kaito_{name}.yaml").read_text()
        for name in (
            "inferenceset_mig_mixed_strategy",
            "inferenceset_llama-3.1_8b_instruct",
            "workspace_accelerator",
            "workspace_custom_config",
            "workspace_phi_3_with_adapters",
            "workspace_phi_4_mini_throughput",
            "workspace_tuning_phi_3_with_pvc_volume",
        )
    ),
]
# Problems of a file as a whole, which have no line.
OF_THE_FILE = ("is empty", "is not UTF-8", "contains no Workspace", "cannot be read")
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
tries = settings(
    max_examples=3000 if LONG else 60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.large_base_example],
)

WORDS = (
    "{{x}} {{=1}} no on 0x1F 0o17 017 1e400 2e-4 1:30 ~ null true = << qlora mig accelerator private A_HERE <X> NaN -1"
    " kaito.sh/v1alpha1 kaito.sh/v9 InferenceSet http://[ http://127.0.0.1/x https://\u2024/x ftp://x file:///etc/passwd"
    " //x https://x:99999/ registry/name@sha256:1 a/b:latest é ../.."
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.dates(),
    st.text(max_size=8),
    st.sampled_from([*WORDS.split(), "", "\U0001f600", "\u2028", "x" * 300, "a\x00b"]),
)
ODD = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = (
    "spec name urls image config kind pipeline tuning inference resource status template adapters partition count"
    " replicas metadata annotations labels Name namé volumeSource schedule evaluation nodes kaito.sh/runtime a.b [0]"
    " {{x}} = << data training_config.yaml inference_config.yaml LoraConfig TrainingArguments vllm"
)
KEYS = st.one_of(st.text(max_size=6), st.sampled_from([*NAMES.split(), ""]))
# What becomes of a line.
LINES = [
    lambda line: f"{line}{line}",
    lambda line: f" {line}",
    lambda line: f"\t{line}",
    lambda line: line.lstrip(),
    lambda line: line.replace(":", " "),
    lambda line: line.replace(": ", ":"),
    lambda line: f"{line} &a [*a]",
    lambda line: f"{line}\n{line}",
    lambda line: f"{line} # \u2028 \x85",
    lambda line: f"{line.partition(':')[0]}: !!int x",
    lambda line: f"{line.partition(':')[0]}: !!binary aGk=",
    lambda line: f"{line.partition(':')[0]}: !!python/object:os.system x",
    lambda line: f"{line.partition(':')[0]}: !custom {{a: 1}}",
    lambda line: f"{line.partition(':')[0]}: |",
    lambda line: f"{line.partition(':')[0]}: >-2",
    lambda line: f"{line.partition(':')[0]}: {{<<: [*nowhere]}}",
    lambda line: f"{line.partition(':')[0]}: 2026-11-24T12:00:00Z",
    lambda line: f"{line.partition(':')[0]}: 0b11",
    lambda line: f"{line.partition(':')[0]}: 1_000",
    lambda line: f"{line.partition(':')[0]}: .inf",
    lambda line: f"{line.partition(':')[0]}: '{{{{ x }}}}'",
    lambda line: f'{line.partition(":")[0]}: "\\ud800"',
    lambda line: "<<: {a: 1}",
    lambda line: "? [x]",
    lambda line: "? {a: b}\n: c",
    lambda line: "---",
    lambda line: "...",
    lambda line: "%YAML 1.2",
    lambda line: "- - - -",
    lambda line: "[" * 3000,
    lambda line: "\x07",
    lambda line: "\ufeff",
    lambda line: "",
]


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


@tries
@given(data=st.data())
def test_changed_fields_are_valid_or_rejected_with_their_line(tmp_path, data):
    objects = list(yaml.safe_load_all(data.draw(st.sampled_from(TEXTS))))
    for _ in range(data.draw(st.integers(1, 4))):
        change(data, objects)
    text = yaml.safe_dump_all(objects, allow_unicode=data.draw(st.booleans()))
    check(tmp_path / "changed.yaml", text.encode("utf-8", "surrogatepass"))


@tries
@given(data=st.data())
def test_changed_lines_are_valid_or_rejected_with_their_line(tmp_path, data):
    lines = data.draw(st.sampled_from(TEXTS)).splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at] = data.draw(st.sampled_from(LINES))(lines[at])
    ending = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    check(tmp_path / "changed.yaml", ending.join(lines).encode("utf-8", "surrogatepass"))


@tries
@given(data=st.data())
def test_changed_bytes_are_valid_or_rejected_with_their_line(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(TEXTS)).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check(tmp_path / "changed.yaml", bytes(content))


def change(data, objects):
    """Drop, add, rename, retype, move or double something anywhere in the documents."""
    place = data.draw(st.sampled_from(list(containers(objects))))
    kind = data.draw(st.sampled_from(["drop", "add", "rename", "retype", "move", "double", "text"]))
    if isinstance(place, list):
        if kind in ("drop", "retype") and place:
            place.pop(data.draw(st.integers(0, len(place) - 1)))
        elif kind == "double" and place:
            place.append(copy.deepcopy(place[0]))
        if kind not in ("drop", "double"):
            place.append(copy.deepcopy(data.draw(ODD)))
        return
    if kind == "add" or not place:
        place[data.draw(KEYS)] = copy.deepcopy(data.draw(ODD))
        return
    key = data.draw(st.sampled_from(sorted(place, key=str)))
    if kind == "drop":
        del place[key]
    elif kind == "rename":
        place[data.draw(KEYS)] = place.pop(key)
    elif kind == "retype":
        place[key] = copy.deepcopy(data.draw(ODD))
    elif kind == "text":
        place[key] = str(place[key]) if isinstance(place[key], int | float | bool) else [place[key]]
    else:
        value = copy.deepcopy(place[key])
        if kind == "move":
            del place[key]
        other = data.draw(st.sampled_from(list(containers(objects))))
        if isinstance(other, list):
            other.append(value)
        else:
            other[key] = value


def containers(value):
    """Every map and list inside a document, outermost first."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def check(file, content):
    file.write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["validate", str(file), "-o", "json"])
    assert (code, err.getvalue()) in ((0, ""), (2, "")), err.getvalue()
    [report] = json.loads(out.getvalue())["files"]
    problems = report["problems"]
    assert bool(problems) is (code == 2)
    assert problems or report["workspaces"]
    if not problems:
        with contextlib.redirect_stderr(err):
            assert all(compile_as(plan, "workflow") for plan in load_plans(str(file)))
    lines = len(content.decode("utf-8", "replace").splitlines()) + 1
    for problem in problems:
        assert problem["file"] == str(file)
        assert problem["message"]
        assert 1 <= problem["line"] <= lines or problem["message"].startswith(OF_THE_FILE), problem
