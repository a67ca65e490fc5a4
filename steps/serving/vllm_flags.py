"""The flags of vLLM that the rollout sets, which a Workspace cannot set in any spelling.

vLLM's parser accepts underscores, unique beginnings of a flag (``--api-server-c``) and keys of JSON flags after a dot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ONE_API_SERVER = "vLLM changes adapters at run time with one API server only"
NO_CODE = "code from a model repository is not executed"
NODES = "pipeline.rollout.nodes sets the nodes of a server"
RESERVED = (
    *("model", "served-model-name", "host", "port", "uds", "headless", "config", "lora-modules", "middleware"),
    *("grpc", "grpc-port", "api-key", "hf-token", "api-server-count", "trust-remote-code"),
    *("nnodes", "node-rank", "master-addr", "master-port"),
)
DATA_PARALLEL = "data-parallel"
"""Beginning of the flags of data parallel servers, all of which are reserved."""
_FLAG = re.compile(r"[a-z0-9][a-z0-9-]*(\.[\w.-]+)?", re.IGNORECASE)


def normalize(flag: str) -> str:
    """Return a flag without leading dashes and with dashes for underscores; keys after a dot are unchanged."""
    head, dot, rest = flag.lstrip("-").partition(".")
    return head.replace("_", "-") + dot + rest


def is_flag(name: str) -> bool:
    """Return True if a normalized name can be a flag: no ``=`` with another value, no second word."""
    return _FLAG.fullmatch(name) is not None


def reserved_name(flag: str) -> str:
    """Return the reserved flag that a flag sets: the same, one that it abbreviates, or its negation; "" if none."""
    name = normalize(flag).partition(".")[0].lower().removeprefix("no-")
    if name.startswith(DATA_PARALLEL):
        return DATA_PARALLEL
    return next((one for one in (*RESERVED, DATA_PARALLEL) if name and one.startswith(name)), "")


def flag_like_values(arguments: Mapping[str, Any]) -> list[str]:
    """Return the flags with a value that vLLM would read as another flag, such as ``--middleware``."""
    return [flag for flag, value in arguments.items() if any(_is_flag_like(item) for item in _items(value))]


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_flag_like(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"-+[a-zA-Z_-]", value) is not None
