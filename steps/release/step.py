"""Release the nodes that provision created, whatever the outcome of the run.

Local machines and existing nodes stay. The cluster's autoscaler removes the nodes it added once they are idle.
"""

from __future__ import annotations

from steps.provision import node_providers
from steps.release.settings import Result, Settings
from steps.runtime.pod import is_pod


def release(settings: Settings) -> Result:
    """Delete exactly the nodes that this run created, and return a summary.

    Raises:
        StepError: as the provider's ``release``.
    """
    if not is_pod():
        return Result("nothing to release: local run")
    if settings.provider in node_providers.CREATING_PROVIDERS:
        return Result(node_providers.provider(settings.provider).release(settings))
    if settings.provider == "existing":
        return Result("nothing to release: the run used existing nodes")
    return Result("nothing to release: the cluster's autoscaler removes idle nodes")
