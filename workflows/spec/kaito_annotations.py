"""KAITO's annotations on a Workspace: which are honoured, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workflows.spec.findings import Findings, unknown
from workflows.spec.source import join

PREFIX = "kaito.sh/"
BYPASS_CHECKS = "kaito.sh/bypass-resource-checks"
"""There, whatever its value: memory is not compared with the machine's."""
PERFORMANCE_MODE = "kaito.sh/performance-mode"
"""vLLM's flag of the same name."""
NODE_CLASS = "kaito.sh/node-class-name"
"""Karpenter's class of nodes, where a run makes its nodes with Karpenter."""


@dataclass(frozen=True)
class Rule:
    """What becomes of an annotation."""

    taken: tuple[str, ...] = ()
    """Values that say what happens anyway; none and ``honoured``: any."""
    honoured: tuple[str, ...] = ()
    """Values that change what happens."""
    message: str = ""
    """KAITO's own words for a value that is none."""
    known: tuple[str, ...] = ()
    """Values that KAITO takes, where it looks."""
    why: str = ""
    """Why the other values are refused."""
    fix: str = ""
    """The nearest way to have the same."""


RULES: Mapping[str, Rule] = {
    BYPASS_CHECKS: Rule(),
    NODE_CLASS: Rule(),
    PERFORMANCE_MODE: Rule(
        taken=("balanced",),
        honoured=("interactivity", "throughput"),
        message='"{}" is not a valid performance mode; choose one of: balanced, interactivity, throughput',
        known=("balanced", "interactivity", "throughput"),
    ),
    "kaito.sh/runtime": Rule(
        taken=("vllm",),
        why="a cluster serves with vLLM",
        fix='write "vllm"; on one machine, ARGOTUNE_VLLM=off serves with the transformers library',
    ),
    "kaito.sh/disable-benchmark": Rule(
        taken=("true",),
        why="no benchmark runs when a model is loaded",
        fix='write "true"; run vllm bench serve against the endpoint when you want figures',
    ),
    "kaito.sh/use-local-weights": Rule(
        taken=("false",),
        message='"{}" must be "true" or "false"',
        known=("true", "false"),
        why="weights are not read from the nodes' disks, which may hold other commits than the preset's",
        fix='write "false"; weights are kept on the models volume (storage.modelsClaim of the site profile)',
    ),
    "kaito.sh/enablelb": Rule(
        taken=("False", "false"),
        why="a served model is not put on the internet, as anybody could use it there",
        fix='write "False"; then kubectl expose service NAME --type=LoadBalancer --name=NAME-public, or a gateway',
    ),
    "kaito.sh/node-image-family": Rule(
        message='unsupported node image family "{}", supported values are azurelinux, ubuntu',
        known=("azurelinux", "ubuntu"),
        why="nodes have the image of their pool",
        fix="leave it out; with Karpenter, kaito.sh/node-class-name names a class whose imageFamily it is",
    ),
}


def check(annotations: Mapping[str, str], serves: bool, found: Findings) -> None:
    """Note each annotation of KAITO that is unknown, or asks for what no run does. Others' annotations are free."""
    for key, value in annotations.items():
        path = join("metadata.annotations", key)
        if not key.startswith(PREFIX):
            continue
        rule = RULES.get(key)
        if not rule:
            found.wrong(path, "unknown annotation of KAITO", unknown(key, RULES))
        elif rule.known and value not in rule.known:
            found.wrong(path, rule.message.format(value), f"write one of {', '.join(rule.known)}")
        elif (rule.taken or rule.why) and value not in (*rule.taken, *rule.honoured):
            found.wrong(path, f"{value!r}: {rule.why}", rule.fix)
        elif value in rule.honoured and not serves:
            found.warn(path, "has no effect without inference", "leave it out")
