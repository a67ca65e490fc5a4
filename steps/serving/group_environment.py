"""What the rollout tells a server on several nodes: its rank, its leader, and the port of the leader."""

from __future__ import annotations

import os

from steps.runtime.errors import BadInput

RANK_VARIABLE = "ARGOTUNE_NODE_RANK"
"""Environment variable of a node with its rank; 0 is the leader."""
LEADER_VARIABLES = ("ARGOTUNE_LEADER", "LWS_LEADER_ADDRESS")
"""Environment variables with the host name of the leader; the second is set by LeaderWorkerSet."""
GROUP_PORT = 5002
"""Port of the leader for the connections of the followers."""


def rank_and_leader() -> tuple[int, str]:
    """Return rank and leader of this node, from its environment.

    Raises:
        BadInput: They are not set.
    """
    rank = os.environ.get(RANK_VARIABLE, "")
    leader = next((value for name in LEADER_VARIABLES if (value := os.environ.get(name))), "")
    if not rank.isdecimal() or not leader:
        message = f"a server on several nodes requires {RANK_VARIABLE} and {LEADER_VARIABLES[0]}"
        raise BadInput(message, "start it by the rollout, which sets them")
    return int(rank), leader
