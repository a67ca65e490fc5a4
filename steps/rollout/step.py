"""Put the base model and its adapters in service, and prove it by a question asked through HTTP.

    python -m steps.rollout --work work --model HuggingFaceTB/SmolLM2-135M-Instruct \\
        --adapters '[{"name": "tuned", "path": "adapter"}]' --question 'What can you do?'

In a pod of a cluster (``KUBERNETES_SERVICE_HOST`` is set, as the kubelet does) the service is a Deployment and a
Service of it, see ``rollout_cluster``; else it is a server on this machine, see ``rollout_machine``. What is served
stays in service until its successor has answered, and changes hands without a request being lost.
"""

from __future__ import annotations

import os

from steps.rollout.settings import Result, Settings


def rollout(settings: Settings) -> Result:
    """Put base and adapters in service and ask the question.

    Raises:
        BadInput: an adapter does not fit the base or the server, or a setting is wrong.
        InsufficientCapacity: there is no memory, or no node, for the server.
        StepError: the server did not come up, or did not answer; the message tells the cause.
        TimeLimit: it did not within the deadline.
    """
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        from steps.rollout import rollout_cluster

        return rollout_cluster.rollout(settings)
    from steps.rollout import rollout_local

    return rollout_local.rollout(settings)
