"""Client of one AKS cluster: credentials, waits and calls.

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
"""Wait between attempts while the cluster finishes another change."""
UNTIL_FREE = RetryPolicy(max_attempts=math.inf)
"""Limited only by the step's deadline."""
POLL_SECONDS = 10
"""Wait between polls if Azure sets none."""
NO_CLUSTER = ("ParentResourceNotFound", "ResourceGroupNotFound", "SubscriptionNotFound")
"""Codes of a 404 that is not about the pool."""
SKUS_API, USAGES_API = "2021-07-01", "2024-07-01"


@dataclass(frozen=True)
class Cluster:
    """Client of an AKS cluster and of its subscription."""

    cluster_ref: ClusterRef
    client: ContainerServiceClient
    arm: ARMPipelineClient[Any, Any]
    endpoint: str
    pause: Deadline
    now: Callable[[], datetime.datetime]

    def pool(self, name: str) -> AgentPool | None:
        """Return a node pool; None if it does not exist."""
        from azure.core.exceptions import ResourceNotFoundError

        with translate_errors(f"cannot read node pool {name}"):
            try:
                return self.client.agent_pools.get(*self._name, name)
            except ResourceNotFoundError as error:
                if error.error and error.error.code in NO_CLUSTER:
                    raise
                return None

    def pools(self) -> list[AgentPool]:
        """Return all node pools."""
        with translate_errors(f"cannot list the node pools of {self.cluster_ref.cluster}"):
            return list(self.client.agent_pools.list(*self._name))

    def location_and_system_pool(self) -> tuple[str, Any]:
        """Return the Azure region, and the system pool, whose subnets new pools use."""
        with translate_errors(f"cannot read cluster {self.cluster_ref.cluster}"):
            cluster = self.client.managed_clusters.get(*self._name)
        profiles = list(cluster.agent_pool_profiles or [])
        return cluster.location, next((pool for pool in profiles if pool.mode == "System"), None)

    def hosts(self) -> set[str]:
        """Return the host names of the cluster's API server."""
        with translate_errors(f"cannot read cluster {self.cluster_ref.cluster}"):
            cluster = self.client.managed_clusters.get(*self._name)
        names = (cluster.fqdn, cluster.private_fqdn, cluster.azure_portal_fqdn)
        return {name.lower() for name in names if name}

    def create(self, name: str, pool: AgentPool) -> None:
        """Create a pool and wait until it is ready; an existing one is not changed.

        Raises:
            InsufficientCapacity: quota or capacity is missing.
            StepError: it was rejected or failed for another reason.
        """
        from azure.core import MatchConditions

        def create() -> None:
            self.client.agent_pools.begin_create_or_update(
                *self._name, name, pool, etag="*", match_condition=MatchConditions.IfMissing
            ).result()

        with translate_errors(f"cannot create node pool {name}"):
            self._when_free(create, expected_status=(412,))

    def delete(self, pool: AgentPool) -> None:
        """Delete a pool and wait until it is deleted, unless it changed since it was read.

        Raises:
            StepError: it was rejected or failed.
        """
        from azure.core import MatchConditions

        def delete() -> None:
            self.client.agent_pools.begin_delete(
                *self._name, str(pool.name), etag=pool.e_tag, match_condition=MatchConditions.IfNotModified
            ).result()

        with translate_errors(f"cannot delete node pool {pool.name}"):
            self._when_free(delete, expected_status=(404, 412))

    def skus(self, location: str) -> list[dict[str, Any]]:
        """Return the SKUs of this subscription in a region (Microsoft.Compute skus)."""
        return self._compute("skus", {"api-version": SKUS_API, "$filter": f"location eq '{location}'"})

    def usages(self, location: str) -> list[dict[str, Any]]:
        """Return the quotas of a region with their usage (Microsoft.Compute usages)."""
        return self._compute(f"locations/{location}/usages", {"api-version": USAGES_API})

    @property
    def _name(self) -> tuple[str, str]:
        return self.cluster_ref.resource_group, self.cluster_ref.cluster

    def _when_free(self, action: Callable[[], None], *, expected_status: tuple[int, ...]) -> None:
        """Run a change once the cluster has finished its current one; ignore errors with an ``expected_status``."""
        from azure.core.exceptions import HttpResponseError

        def attempt() -> None:
            try:
                action()
            except HttpResponseError as error:
                if error.status_code in expected_status:
                    return
                if aks_errors.is_busy(error):
                    print(f"waiting: {aks_errors.error_message(error)}", flush=True)
                    raise TransientError(aks_errors.error_message(error), retry_after=BUSY_SECONDS) from error
                raise

        retry_call(attempt, UNTIL_FREE, sleep=self.pause)

    def _compute(self, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
        from azure.core.rest import HttpRequest

        url = f"{self.endpoint}/subscriptions/{self.cluster_ref.subscription}/providers/Microsoft.Compute/{path}"
        items: list[dict[str, Any]] = []
        request: HttpRequest | None = HttpRequest("GET", url, params=query)
        while request is not None:
            response = self.arm.send_request(request)
            response.raise_for_status()
            page = response.json()
            items += page["value"]
            request = HttpRequest("GET", page["nextLink"]) if page.get("nextLink") else None
        return items


def connect(
    cluster_ref: ClusterRef,
    *,
    pause: Deadline | None = None,
    read_timeout: float = 60,
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> Cluster:
    """Return a client of a cluster; no request is sent.

    Raises:
        BadInput: the site profile names no cluster, or no Azure credential is configured.
    """
    from azure.core.pipeline import policies
    from azure.mgmt.containerservice import ContainerServiceClient
    from azure.mgmt.core import ARMPipelineClient
    from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

    missing = [name for name in ("subscription", "resource_group", "cluster") if not getattr(cluster_ref, name)]
    if missing:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        fix = "set subscription, resourceGroup and cluster below nodes in the site profile"
        raise BadInput(f"{names} required for AKS", fix)
    pause = pause or Deadline()
    options: dict[str, Any] = {"connection_timeout": 10, "read_timeout": read_timeout}
    transport = _transport(pause, options)
    azure_credential = credential(transport)
    endpoint, scopes = _endpoint()
    client = ContainerServiceClient(
        azure_credential,
        cluster_ref.subscription,
        base_url=endpoint,
        credential_scopes=scopes,
        transport=transport,
        polling_interval=POLL_SECONDS,
    )
    chain = [
        policies.RequestIdPolicy(),
        policies.UserAgentPolicy("argotune"),
        policies.RetryPolicy(),
        ARMChallengeAuthenticationPolicy(azure_credential, *scopes),
    ]
    arm: ARMPipelineClient[Any, Any] = ARMPipelineClient(endpoint, policies=chain, transport=transport)
    return Cluster(cluster_ref, client, arm, endpoint, pause, now)


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
            # The webhook sets the authority too, so it is not looked up in the public cloud.
            return WorkloadIdentityCredential(disable_instance_discovery=True, transport=transport)
        except ValueError as error:
            fix = "check label and annotation of the service account (docs/NODES.md), or set AZURE_CLIENT_ID"
            raise BadInput(f"Azure's workload identity is incomplete: {error}", fix) from None
    managed_identity = ManagedIdentityCredential(
        client_id=os.environ.get("AZURE_CLIENT_ID") or None, transport=transport
    )
    # A chain, even of one credential, detects a machine outside Azure within a second.
    return ChainedTokenCredential(*([AzureCliCredential()] if shutil.which("az") else []), managed_identity)


@contextmanager
def translate_errors(message: str) -> Iterator[None]:
    """Raise the SDK's errors as step errors; ``message`` names the failed operation."""
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise aks_errors.to_step_error(error, message) from error


def _endpoint() -> tuple[str, list[str]]:
    """Return the address of the Resource Manager and the scopes of its tokens."""
    from azure.core.settings import settings
    from azure.mgmt.core.tools import get_arm_endpoints

    custom = os.environ.get("ARGOTUNE_ARM_ENDPOINT", "").rstrip("/")
    if custom:
        return custom, [f"{custom}/.default"]
    known = get_arm_endpoints(settings.azure_cloud())
    return known["resource_manager"].rstrip("/"), known["credential_scopes"]


def _transport(pause: Deadline, options: dict[str, Any]) -> HttpTransport[Any, Any]:
    """Return the SDK's transport over requests, with the step's waits.

    It reads each response completely inside ``send``, so that the SDK retries a broken one.
    """
    from azure.core.pipeline.transport import RequestsTransport

    class CompleteResponses(RequestsTransport):
        def send(self, request: Any, **kwargs: Any) -> Any:
            response = super().send(request, **kwargs)
            if hasattr(response, "read"):
                response.read()
            return response

        def sleep(self, duration: float) -> None:
            pause(duration)

    return CompleteResponses(**options)
