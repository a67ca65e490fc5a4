"""KAITO's annotations on a Workspace: which are honoured, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping

from workflows.spec.findings import Findings, unknown
from workflows.spec.source import join

BYPASS_CHECKS = "kaito.sh/bypass-resource-checks"
_NOT_YET = "is not supported yet"
# Annotation -> values that say what happens anyway, and why no other is taken.
_KNOWN: Mapping[str, tuple[tuple[str, ...], str]] = {
    "kaito.sh/runtime": (("vllm",), "a model is served by vLLM"),
    "kaito.sh/disable-benchmark": (("true",), "no benchmark runs when a model is loaded"),
    "kaito.sh/performance-mode": (("balanced",), _NOT_YET),
    "kaito.sh/use-local-weights": (("false",), _NOT_YET),
    "kaito.sh/enablelb": (("False", "false"), _NOT_YET),
    "kaito.sh/node-image-family": ((), _NOT_YET),
    "kaito.sh/node-class-name": ((), _NOT_YET),
}
# The messages of KAITO's webhook for values that it refuses itself.
_VALUES = {
    "kaito.sh/performance-mode": ("balanced", "interactivity", "throughput"),
    "kaito.sh/node-image-family": ("azurelinux", "ubuntu"),
    "kaito.sh/use-local-weights": ("true", "false"),
}
_MESSAGES = {
    "kaito.sh/performance-mode": (
        '"{}" is not a valid performance mode; choose one of: balanced, interactivity, throughput'
    ),
    "kaito.sh/node-image-family": 'unsupported node image family "{}", supported values are azurelinux, ubuntu',
    "kaito.sh/use-local-weights": '"{}" must be "true" or "false"',
}


def check(annotations: Mapping[str, str], found: Findings) -> None:
    """Note each annotation of KAITO that is unknown, or asks for what no run does. Others' annotations are free."""
    for key, value in annotations.items():
        path = join("metadata.annotations", key)
        if key == BYPASS_CHECKS or not key.startswith("kaito.sh/"):
            continue
        if key not in _KNOWN:
            found.wrong(path, "unknown annotation of KAITO", unknown(key, (BYPASS_CHECKS, *_KNOWN)))
            continue
        harmless, why = _KNOWN[key]
        if key in _VALUES and value not in _VALUES[key]:
            found.wrong(path, _MESSAGES[key].format(value), f"write one of {', '.join(_VALUES[key])}")
        elif value not in harmless:
            fix = f'leave it out, or write "{harmless[0]}"' if harmless else "leave it out"
            found.wrong(path, f"{value!r}: {why}", fix)
