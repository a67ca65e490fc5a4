"""Serve the base model and its adapters, and verify them by a question over HTTP.

    python -m steps.rollout --work work --model HuggingFaceTB/SmolLM2-135M-Instruct \\
        --adapters '[{"name": "tuned", "path": "adapter"}]' --question 'What can you do?'

In a pod (the kubelet sets ``KUBERNETES_SERVICE_HOST``) the servers are a Deployment behind a Service, see
``rollout_cluster``; otherwise a local process, see ``rollout_local``. The current release stays live until the new one
has answered, and no request is lost.
"""

from __future__ import annotations

from steps.rollout import adapter_sources
from steps.rollout.settings import Result, Settings
from steps.runtime.pod import is_pod


def rollout(settings: Settings) -> Result:
    """Serve base model and adapters and ask the question.

    Raises:
        BadInput: An adapter is incompatible with the base model or the server, or a setting is invalid.
        InsufficientCapacity: There is no memory or no node for the server.
        StepError: The server did not start or did not answer.
        TimeLimit: It did not answer before the deadline.
    """
    settings = adapter_sources.pin_base(settings)
    if is_pod():
        from steps.rollout import rollout_cluster

        return rollout_cluster.rollout(settings)
    from steps.rollout import rollout_local

    return rollout_local.rollout(settings)
