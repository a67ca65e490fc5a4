"""No spelling of a reserved flag reaches vLLM's command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.runtime.errors import BadInput
from steps.serving import server_command, vllm_flags

DATA_PARALLEL = ("size", "size-local", "rank", "start-rank", "address", "rpc-port", "backend", "hybrid-lb")
RESERVED = (*vllm_flags.RESERVED, *(f"data-parallel-{name}" for name in DATA_PARALLEL))
OTHERS = ("max-model-len", "max-num-seqs", "dtype", "enforce-eager", "port-range", "hostname", "model-impl")


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """A reserved flag, and a spelling by which argparse finds it."""
    flag = draw(st.sampled_from(RESERVED))
    name = flag[: draw(st.integers(1, len(flag)))] if draw(st.booleans()) else flag
    name = "".join(draw(st.sampled_from("-_")) if char == "-" else char for char in name)
    name = "--" * draw(st.integers(0, 1)) + name + draw(st.sampled_from(["", ".x", ".x.y"]))
    return flag, name


@given(spellings())
def test_a_reserved_flag_is_rejected_in_every_spelling(spelling: tuple[str, str]) -> None:
    with pytest.raises(BadInput, match="server_arguments cannot set"):
        server_command.normalize_arguments({spelling[1]: "2"})


@given(st.dictionaries(st.text("abdehilmnoprstu-_=. ", min_size=1, max_size=20), st.text("-a=3 ", max_size=6)))
def test_accepted_flags_set_no_reserved_one(arguments: Mapping[str, Any]) -> None:
    """argparse, which accepts abbreviations as vLLM's parser does, parses what was accepted."""
    try:
        accepted = server_command.normalize_arguments(arguments)
    except BadInput:
        return
    parser = argparse.ArgumentParser(exit_on_error=False)
    for flag in (*RESERVED, *OTHERS):
        parser.add_argument(f"--{flag}", dest=flag, nargs="?")
    try:
        parsed, _ = parser.parse_known_args(server_command.format_flags(accepted))
    except argparse.ArgumentError:  # ambiguous
        return
    assert {flag for flag in RESERVED if getattr(parsed, flag) is not None} == set()


@pytest.mark.parametrize("flag", [*OTHERS, "max_model_len", "compilation-config.level", "no-enable-prefix-caching"])
def test_other_flags_are_accepted(flag: str) -> None:
    assert server_command.normalize_arguments({flag: 1}) == {vllm_flags.normalize(flag): 1}


@pytest.mark.parametrize("value", ["--middleware", "-O3", ["a", "--port", "80"]])
def test_a_value_is_no_flag(value: Any) -> None:
    with pytest.raises(BadInput, match="dtype: its value begins with a dash"):
        server_command.normalize_arguments({"dtype": value})


def test_all_problems_are_reported_together() -> None:
    arguments = {"api_server_c": 2, "data-parallel-size": 2, "trust-remote-code": True, "a=b": 1, "seed": "-1"}
    with pytest.raises(BadInput) as error:
        server_command.normalize_arguments(arguments)
    assert error.value.message == (
        "server_arguments cannot set api-server-c: remove it: vLLM changes adapters at run time with one API server "
        "only; data-parallel-size: remove it, and set replicas: vLLM changes adapters at run time with one API server "
        "only; trust-remote-code: remove it: code from a model repository is not executed; 'a=b': it is not a flag of "
        "vLLM"
    )
    assert server_command.normalize_arguments({"trust_remote_code": False}) == {"trust-remote-code": False}
