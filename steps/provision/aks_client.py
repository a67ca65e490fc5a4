"""One AKS cluster, as the steps ask it: who they are to Azure, how long they wait, and the calls they make.

Environment: ``AZURE_CLIENT_ID``, ``AZURE_TENANT_ID``, ``AZURE_FEDERATED_TOKEN_FILE``, ``AZURE_AUTHORITY_HOST`` as the
webhook of Azure's workload identity sets them; ``AZURE_SDK_CLOUD_CONF`` for another cloud of Azure;
``ARGOTUNE_ARM_ENDPOINT`` for a custom Resource Manager endpoint (Azure Stack).
"""

from __future__ import annotations

import datetime
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.provision import aks_errors
from steps.provision.settings import ClusterRef
from steps.runtime.deadline import Deadline
from steps.runtime.errors import BadInput, TransientError
from steps.runtime.retry import RetryPolicy, retry_call

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline.transport import HttpTransport
    from azure.core.rest import HttpRequest
    from azure.mgmt.containerservice import ContainerServiceClient
    from azure.mgmt.containerservice.models import AgentPool
    from azure.mgmt.core import ARMPipelineClient

BUSY_SECONDS = 20
"""Between attempts while the cluster finishes another change."""
UNTIL_FREE = RetryPolicy(max_attempts=math.inf)
"""Limited only by the step's deadline."""
POLL_SECONDS = 10
"""Between polls, where Azure does not say how long."""
NO_CLUSTER = ("ParentResourceNotFound", "ResourceGroupNotFound", "SubscriptionNotFound")
"""Codes of a 404 that is not about the pool."""
SKUS_API, USAGES_API = "2021-07-01", "2024-07-01"


@dataclass(frozen=True)
class Cluster:
    """An AKS cluster and the means to ask it."""

    place: ClusterRef
    client: ContainerServiceClient
    arm: ARMPipelineClient[Any, Any]
    endpoint: str
    pause: Deadline
    now: Callable[[], datetime.datetime]

    def pool(self, name: str) -> AgentPool | None:
        """Return a node pool; None if it does not exist."""
        from azure.core.exceptions import ResourceNotFoundError

        with asking(f"reading node pool {name}"):
            try:
                return self.client.agent_pools.get(*self._name, name)
            except ResourceNotFoundError as error:
                if error.error and error.error.code in NO_CLUSTER:
                    raise
                return None

    def pools(self) -> list[AgentPool]:
        """All node pools."""
        with asking(f"listing the node pools of {self.place.cluster}"):
            return list(self.client.agent_pools.list(*self._name))

    def location_and_system_pool(self) -> tuple[str, Any]:
        """Azure region, and the pool that the cluster itself runs on, whose network new pools share."""
        with asking(f"reading cluster {self.place.cluster}"):
            found = self.client.managed_clusters.get(*self._name)
        profiles = list(found.agent_pool_profiles or [])
        return found.location, next((pool for pool in profiles if pool.mode == "System"), None)

    def hosts(self) -> set[str]:
        """Names by which the cluster's API is reached."""
        with asking(f"reading cluster {self.place.cluster}"):
            found = self.client.managed_clusters.get(*self._name)
        names = (found.fqdn, found.private_fqdn, found.azure_portal_fqdn)
        return {name.lower() for name in names if name}

    def create(self, name: str, pool: AgentPool) -> None:
        """Create a pool and wait until it is done; one that is there already is not changed.

        Raises:
            InsufficientCapacity: there is no quota or no capacity for it.
            StepError: it was refused, or failed, for another reason.
        """
        from azure.core import MatchConditions

        def create() -> None:
            self.client.agent_pools.begin_create_or_update(
                *self._name, name, pool, etag="*", match_condition=MatchConditions.IfMissing
            ).result()

        with asking(f"creating node pool {name}"):
            self._when_free(create, fine=(412,))

    def delete(self, pool: AgentPool) -> None:
        """Delete a pool as it was read, and wait until it is gone; one that has changed meanwhile stays.

        Raises:
            StepError: it was refused, or failed.
        """
        from azure.core import MatchConditions

        def delete() -> None:
            self.client.agent_pools.begin_delete(
                *self._name, str(pool.name), etag=pool.e_tag, match_condition=MatchConditions.IfNotModified
            ).result()

        with asking(f"deleting node pool {pool.name}"):
            self._when_free(delete, fine=(404, 412))

    def skus(self, location: str) -> list[dict[str, Any]]:
        """Return the SKUs of this subscription in a region (Microsoft.Compute skus)."""
        return self._compute("skus", {"api-version": SKUS_API, "$filter": f"location eq '{location}'"})

    def usages(self, location: str) -> list[dict[str, Any]]:
        """Quotas of a region, and how much of them is used (Microsoft.Compute usages)."""
        return self._compute(f"locations/{location}/usages", {"api-version": USAGES_API})

    @property
    def _name(self) -> tuple[str, str]:
        return self.place.resource_group, self.place.cluster

    def _when_free(self, action: Callable[[], None], *, fine: tuple[int, ...]) -> None:
        """Run a change as soon as the cluster has finished its current one; ignore errors whose status is ``fine``."""
        from azure.core.exceptions import HttpResponseError

        def attempt() -> None:
            try:
                action()
            except HttpResponseError as error:
                if error.status_code in fine:
                    return
                if aks_errors.is_busy(error):
                    print(f"waiting: {aks_errors.error_message(error)}", flush=True)
                    raise TransientError(aks_errors.error_message(error), retry_after=BUSY_SECONDS) from error
                raise

        retry_call(attempt, UNTIL_FREE, sleep=self.pause)

    def _compute(self, what: str, query: dict[str, str]) -> list[dict[str, Any]]:
        from azure.core.rest import HttpRequest

        url = f"{self.endpoint}/subscriptions/{self.place.subscription}/providers/Microsoft.Compute/{what}"
        found: list[dict[str, Any]] = []
        request: HttpRequest | None = HttpRequest("GET", url, params=query)
        while request is not None:
            response = self.arm.send_request(request)
            response.raise_for_status()
            page = response.json()
            found += page["value"]
            request = HttpRequest("GET", page["nextLink"]) if page.get("nextLink") else None
        return found


def connect(
    place: ClusterRef,
    *,
    pause: Deadline | None = None,
    read_timeout: float = 60,
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> Cluster:
    """Get ready to ask a cluster; nothing is asked yet.

    Raises:
        BadInput: the site profile names no cluster, or there is no Azure credential.
    """
    from azure.core.pipeline import policies
    from azure.mgmt.containerservice import ContainerServiceClient
    from azure.mgmt.core import ARMPipelineClient
    from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

    missing = [name for name in ("subscription", "resource_group", "cluster") if not getattr(place, name)]
    if missing:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise BadInput(
            f"which AKS cluster? missing: {names}", "nodes: {subscription, resourceGroup, cluster} of the site"
        )
    waiting = pause or Deadline()
    options: dict[str, Any] = {"connection_timeout": 10, "read_timeout": read_timeout}
    transport = _transport(waiting, options)
    who = credential(transport)
    endpoint, scopes = _endpoint()
    client = ContainerServiceClient(
        who,
        place.subscription,
        base_url=endpoint,
        credential_scopes=scopes,
        transport=transport,
        polling_interval=POLL_SECONDS,
    )
    chain = [
        policies.RequestIdPolicy(),
        policies.UserAgentPolicy("argotune"),
        policies.RetryPolicy(),
        ARMChallengeAuthenticationPolicy(who, *scopes),
    ]
    arm: ARMPipelineClient[Any, Any] = ARMPipelineClient(endpoint, policies=chain, transport=transport)
    return Cluster(place, client, arm, endpoint, waiting, now)


def credential(transport: HttpTransport[Any, Any]) -> TokenCredential:
    """Return the Azure credential: the pod's workload identity, else az login, else the managed identity."""
    from azure.identity import (
        AzureCliCredential,
        ChainedTokenCredential,
        ManagedIdentityCredential,
        WorkloadIdentityCredential,
    )

    if os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        try:
            # The webhook has set the authority too; it need not be looked up in the public cloud.
            return WorkloadIdentityCredential(disable_instance_discovery=True, transport=transport)
        except ValueError as error:
            raise BadInput(f"Azure's workload identity is incomplete: {error}") from None
    machine = ManagedIdentityCredential(client_id=os.environ.get("AZURE_CLIENT_ID") or None, transport=transport)
    # In a chain, even of one, a machine outside Azure is detected within a second.
    return ChainedTokenCredential(*([AzureCliCredential()] if shutil.which("az") else []), machine)


@contextmanager
def asking(doing: str) -> Iterator[None]:
    """Turn the SDK's errors into the step's own, with what was being done."""
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise aks_errors.in_words(error, doing) from error


def _endpoint() -> tuple[str, list[str]]:
    """Address of the Resource Manager, and the scopes of its tokens."""
    from azure.core.settings import settings
    from azure.mgmt.core.tools import get_arm_endpoints

    own = os.environ.get("ARGOTUNE_ARM_ENDPOINT", "").rstrip("/")
    if own:
        return own, [f"{own}/.default"]
    known = get_arm_endpoints(settings.azure_cloud())
    return known["resource_manager"].rstrip("/"), known["credential_scopes"]


def _transport(pause: Deadline, options: dict[str, Any]) -> HttpTransport[Any, Any]:
    """The SDK's transport over requests, which waits as we do, and reads answers where the SDK still tries again."""
    from azure.core.pipeline.transport import RequestsTransport

    class WholeAnswers(RequestsTransport):
        def send(self, request: Any, **kwargs: Any) -> Any:
            response = super().send(request, **kwargs)
            if hasattr(response, "read"):
                response.read()
            return response

        def sleep(self, duration: float) -> None:
            pause(duration)

    return WholeAnswers(**options)
