"""Distribution of the ranks of a training over nodes.

The pod of the step is node 0: it has the work volume and writes all results. The pods of the other nodes run the same
step with the variables below, which ``node_pods.py`` sets. Without pods, all nodes are processes of this machine.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from steps.runtime.errors import InsufficientCapacity, StepError

RENDEZVOUS = "ARGOTUNE_RENDEZVOUS"
"""Address of rank 0, in the pods of the other nodes: ``HOST:PORT``."""
OOM_RETRIES = "ARGOTUNE_OOM_RETRIES"
"""Number of restarts of the training due to lack of memory."""
COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
"""Set by Kubernetes in the pods of an Indexed Job."""
LOCALHOST = "127.0.0.1"


class NodesUnavailable(InsufficientCapacity):
    """Other nodes cannot run; sharding the weights does not help."""


@dataclass(frozen=True)
class Layout:
    """Nodes of a training, and processes on each of them."""

    processes: int
    """Processes of one node."""
    nodes: int = 1
    node: int | None = None
    """Node of this pod; None: all nodes are processes of this machine."""
    host: str = LOCALHOST
    """Address of rank 0."""
    port: int = 0
    """Port of rank 0; not used by a single node."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.processes * self.nodes

    @property
    def ranks(self) -> range:
        """Ranks that run on this machine."""
        if self.node is None:
            return range(self.world_size)
        return range(self.node * self.processes, (self.node + 1) * self.processes)

    @property
    def is_first(self) -> bool:
        """True on the machine of rank 0."""
        return not self.node

    def with_free_port(self) -> Layout:
        """Return the layout with a port on this machine that is free now, for the next attempt of rank 0."""
        if self.nodes == 1:
            return self
        with socket.socket() as probe:
            probe.bind(("", 0))
            return replace(self, port=probe.getsockname()[1])


def is_other_node() -> bool:
    """Return True in the pod of a node other than the first."""
    return RENDEZVOUS in os.environ


def from_environment(processes: int, nodes: int, environment: Mapping[str, str] = os.environ) -> Layout:
    """Return the layout as the pod of a node other than the first sees it."""
    host, _, port = environment[RENDEZVOUS].rpartition(":")
    return Layout(processes, nodes, int(environment[COMPLETION_INDEX]) + 1, host, int(port))


def pod_address() -> str:
    """Return the address of this pod, which the kubelet writes to ``/etc/hosts``."""
    return str(socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)[0][4][0])


class NodeOutOfMemory(StepError):
    """A rank of this node is out of memory; the first node restarts all with smaller batches."""

    exit_code = 40


class NodeLost(StepError):
    """The connection between the nodes is lost; the first node restarts all from the last checkpoint."""

    exit_code = 41
