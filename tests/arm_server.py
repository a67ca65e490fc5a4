"""A fake Azure over HTTPS: the token endpoints, and the Resource Manager API that the AKS steps use.

Node pools are created and deleted by long-running operations that end after a number of polls, not after a time.
Codes, messages and headers are those that Azure documents (AKS REST API, async operations of the Resource Manager).
"""

from __future__ import annotations

import datetime
import json
import re
import ssl
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from certificates import KeyPair
from faults import Faults, FaultyHandler

SUBSCRIPTION, GROUP, CLUSTER, TENANT = "00000000-0000-0000-0000-00000000beef", "ml", "aks-ml", "tenant-1"
CLIENT_ID, ASSERTION, TOKEN = "client-1", "service-account-token", "canary-access-token"
A100, A10 = "Standard_NC24ads_A100_v4", "Standard_NV36ads_A10_v5"
PAGE = 3
RETRY_AFTER = 10
"""Seconds between looks at an operation, as the server asks."""
_AKS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.ContainerService"
FQDN = "aks-ml-1a2b3c4d.hcp.eastus.azmk8s.io"
_CLUSTER = f"{_AKS}/managedClusters/{CLUSTER}"
_COMPUTE = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute"


@dataclass
class Pool:
    """A node pool, and the number of polls until its operation ends."""

    resource: dict[str, Any]
    version: int = 1
    looks: int = 0
    ends_as: str = "Succeeded"
    error: dict[str, str] | None = None

    @property
    def properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = self.resource["properties"]
        return properties


@dataclass
class Azure:
    """State of the cloud; tests set and inspect it."""

    pools: dict[str, Pool] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    """Size (and ``spot``, zone) of every pool that was made."""
    deleted: list[str] = field(default_factory=list)
    most: int = 0
    """Most pools of runs that were there at one time."""
    looks: int = 2
    failing: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Code and text with which pools of a size (``SIZE``, ``SIZE spot``, ``SIZE zone 1``) end."""
    refusing: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    """Status, code and text with which they are refused at once."""
    busy: int = 0
    """Number of further requests to reject because another operation is in progress."""
    forbidden: str = ""
    """A part of the paths that the caller may not read."""
    fqdn: str = FQDN
    """Name of the cluster's API."""
    undeletable: str = ""
    """A pool whose nodes can't be drained."""
    skus: list[dict[str, Any]] = field(default_factory=list)
    usages: list[dict[str, Any]] = field(default_factory=list)
    actions: set[str] = field(default_factory=set)
    """Return the actions that a role must allow for the calls so far."""
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the id of the operation: pool, and error and end, once it has ended."""


def sku(name: str, family: str, vcpus: int, gpus: int = 1, **more: Any) -> dict[str, Any]:
    """One of ``Microsoft.Compute/skus``."""
    capabilities = {"vCPUs": str(vcpus), "GPUs": str(gpus), "LowPriorityCapable": "True"}
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "family": family,
        "locations": ["eastus"],
        "locationInfo": [{"location": "eastus", "zones": ["1", "2"]}],
        "capabilities": [{"name": key, "value": value} for key, value in capabilities.items()],
        "restrictions": [],
        **more,
    }


def usage(name: str, used: int, limit: int) -> dict[str, Any]:
    """One of ``Microsoft.Compute/locations/usages``."""
    return {"name": {"value": name, "localizedValue": name}, "currentValue": used, "limit": limit, "unit": "Count"}


class ArmServer(ThreadingHTTPServer):
    """The fake server; ``azure`` is its state, ``faults`` how it fails."""

    daemon_threads = True

    def __init__(self, pair: KeyPair) -> None:
        self.faults = Faults()
        self.azure = Azure(
            skus=[sku(A100, "StandardNCADSA100v4Family", 24), sku(A10, "StandardNVADSA10v5Family", 36)],
            usages=[
                usage("cores", 100, 500),
                usage("lowPriorityCores", 0, 100),
                usage("standardNCADSA100v4Family", 0, 48),
                usage("StandardNVADSA10v5Family", 0, 72),
            ],
        )
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"faults": self.faults, "azure": self.azure, "lock": self.lock})
        super().__init__(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://localhost:{self.server_port}"
        handler.url = self.url
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are a part of the tests."""

    def close(self) -> None:
        self.faults.close()
        self.shutdown()
        self.server_close()


class _Handler(FaultyHandler, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    azure: Azure
    lock: threading.Lock
    url: str

    def call_name(self) -> str:
        path = urllib.parse.urlsplit(self.path).path
        for pattern, name in _NAMES:
            if re.search(pattern, path):
                return f"{self.command} {name}"
        return f"{self.command} {path}"

    def fault_body(self, status: int) -> bytes:
        code = "TooManyRequests" if status == 429 else "InternalServerError"
        return json.dumps({"error": {"code": code, "message": "by fault injection"}}).encode()

    def do_GET(self) -> None:
        self._answer("read")

    def do_POST(self) -> None:
        self._answer("action")

    def do_PUT(self) -> None:
        self._answer("write")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def _answer(self, verb: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlsplit(self.path)
        with self.lock:
            if url.path.startswith(f"/{TENANT}/") or url.path.startswith("/metadata/"):
                return self._token(url.path, urllib.parse.parse_qs(body.decode()))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._error(401, "InvalidAuthenticationToken", "The access token is missing or invalid.")
            if not urllib.parse.parse_qs(url.query).get("api-version"):
                return self._error(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
            if self.azure.forbidden and self.azure.forbidden in url.path:
                message = (
                    f"The client '{CLIENT_ID}' does not have authorization to perform action over scope '{url.path}'."
                )
                return self._error(403, "AuthorizationFailed", message)
            return self._resource(verb, url.path, url.query, json.loads(body or b"{}"))

    def _token(self, path: str, form: dict[str, list[str]]) -> None:
        granted = {"token_type": "Bearer", "expires_in": 3600, "access_token": TOKEN}
        if path.startswith("/metadata/"):
            expires = str(int(datetime.datetime.now().timestamp()) + 3600)
            return self._json(200, {**granted, "expires_in": "3600", "expires_on": expires, "resource": self.url})
        if path.endswith("/openid-configuration"):
            authority = f"{self.url}/{TENANT}"
            found = {"authorization_endpoint": f"{authority}/oauth2/v2.0/authorize", "issuer": f"{authority}/v2.0"}
            return self._json(200, {**found, "token_endpoint": f"{authority}/oauth2/v2.0/token"})
        if form.get("client_assertion") != [ASSERTION] or form.get("client_id") != [CLIENT_ID]:
            message = "AADSTS700213: No matching federated identity record found for presented assertion."
            return self._json(401, {"error": "invalid_client", "error_description": message, "error_codes": [700213]})
        return self._json(200, granted)

    def _resource(self, verb: str, path: str, query: str, body: dict[str, Any]) -> None:
        if path == f"{_COMPUTE}/skus":
            self.azure.actions.add("Microsoft.Compute/skus/read")
            return self._page(self.azure.skus, path, query)
        if path == f"{_COMPUTE}/locations/eastus/usages":
            self.azure.actions.add("Microsoft.Compute/locations/usages/read")
            return self._page(self.azure.usages, path, query)
        if operation := re.search(r"/locations/eastus/operations/([^/]+)$", path):
            self.azure.actions.add("Microsoft.ContainerService/locations/operations/read")
            return self._operation(operation[1])
        if not path.startswith(_CLUSTER):
            message = (
                f"The Resource '{path.partition('/providers/')[2]}' under resource group '{GROUP}' was not found."
            )
            if "/agentPools" in path:
                return self._error(
                    404, "ParentResourceNotFound", "Failed to perform 'read': the parent was not found."
                )
            return self._error(404, "ResourceNotFound", message)
        if path == _CLUSTER:
            self.azure.actions.add("Microsoft.ContainerService/managedClusters/read")
            return self._json(200, self._cluster())
        self.azure.actions.add(f"Microsoft.ContainerService/managedClusters/agentPools/{verb}")
        name = path.removeprefix(f"{_CLUSTER}/agentPools").strip("/")
        if not name:
            return self._page([self._shown(name) for name in list(self.azure.pools)], path, query)
        return {"read": self._get, "write": self._put, "delete": self._delete}[verb](name, body)

    def _cluster(self) -> dict[str, Any]:
        system = {"name": "system", "mode": "System", "vmSize": "Standard_D4s_v5", "vnetSubnetID": f"{_AKS}/subnet"}
        properties = {"provisioningState": "Succeeded", "agentPoolProfiles": [system]}
        properties |= {"fqdn": self.azure.fqdn, "azurePortalFQDN": FQDN.replace(".hcp", ".portal.hcp")}
        return {"id": _CLUSTER, "name": CLUSTER, "location": "eastus", "properties": properties}

    def _get(self, name: str, _: dict[str, Any]) -> None:
        self._look(name)
        if name not in self.azure.pools:
            message = f"The Resource 'managedClusters/{CLUSTER}/agentPools/{name}' was not found."
            return self._error(404, "NotFound", message)
        return self._json(200, self._shown(name))

    def _put(self, name: str, body: dict[str, Any]) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,11}", name):
            return self._error(400, "InvalidParameter", f"Agent pool name {name} is invalid.")
        if name in self.azure.pools and self.headers.get("If-None-Match") == "*":
            return self._error(412, "PreconditionFailed", f"Agent pool {name} exists.")
        if self._is_busy():
            return None
        kinds = _kinds(body["properties"])
        if refusal := next((self.azure.refusing[kind] for kind in kinds if kind in self.azure.refusing), None):
            return self._error(*refusal)
        resource = {"id": f"{_CLUSTER}/agentPools/{name}", "name": name, **body}
        resource["properties"]["provisioningState"] = "Creating"
        pool = Pool(resource, looks=self.azure.looks)
        if failing := next((self.azure.failing[kind] for kind in kinds if kind in self.azure.failing), None):
            pool.ends_as, pool.error = "Failed", {"code": failing[0], "message": failing[1]}
        self.azure.pools[name] = pool
        self.azure.made.append(kinds[0])
        self.azure.most = max(self.azure.most, len(self.azure.pools))
        return self._json(201, self._shown(name), self._started(name))

    def _delete(self, name: str, _: dict[str, Any]) -> None:
        pool = self.azure.pools.get(name)
        if pool is None:
            return self._empty(204)
        if self.headers.get("If-Match", "").strip('"') not in ("", str(pool.version)):
            return self._error(412, "PreconditionFailed", "The etag does not match.")
        state = pool.properties["provisioningState"]
        if state in ("Creating", "Updating"):
            self._look(name)
            message = f"Another agentpool operation ({name} - {state}) is in progress, please wait for it to finish"
            return self._error(409, "OperationNotAllowed", f"Operation is not allowed: {message} before a new one.")
        if self._is_busy():
            return None
        if name == self.azure.undeletable:
            message = "Drain node failed: Cannot evict pod as it would violate the pod's disruption budget."
            return self._error(409, "PodDrainFailure", message)
        if state != "Deleting":
            pool.properties["provisioningState"], pool.looks = "Deleting", self.azure.looks
            pool.version += 1
        return self._empty(202, self._started(name))

    def _started(self, name: str) -> dict[str, str]:
        operation = f"op-{len(self.azure.operations) + 1}"
        self.azure.operations[operation] = {"pool": name, "of": self.azure.pools[name]}
        url = f"{self.url}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/eastus"
        address = f"{url}/operations/{operation}?api-version=2017-08-31"
        return {"Azure-AsyncOperation": address, "Retry-After": str(RETRY_AFTER)}

    def _operation(self, name: str) -> None:
        operation = self.azure.operations.get(name)
        if operation is None:
            return self._error(404, "NotFound", f"operation {name} was not found.")
        pool: Pool = operation["of"]
        if self.azure.pools.get(operation["pool"]) is pool:
            self._look(operation["pool"])
        there = self.azure.pools.get(operation["pool"]) is pool
        state = pool.properties["provisioningState"]
        status = "InProgress" if there and state in ("Creating", "Deleting") else "Succeeded"
        answer: dict[str, Any] = {"name": name, "status": status}
        if there and state == "Failed":
            answer |= {"status": "Failed", "error": pool.error}
        return self._json(200, answer, {"Retry-After": str(RETRY_AFTER)} if status == "InProgress" else {})

    def _look(self, name: str) -> None:
        """Advance the operation of a pool with each poll."""
        pool = self.azure.pools.get(name)
        if pool is None or pool.properties["provisioningState"] not in ("Creating", "Deleting"):
            return
        pool.looks -= 1
        if pool.looks > 0:
            return
        if pool.properties["provisioningState"] == "Deleting":
            del self.azure.pools[name]
            self.azure.deleted.append(name)
            return
        pool.properties["provisioningState"] = pool.ends_as
        pool.version += 1
        if pool.error:
            pool.properties["status"] = {"provisioningError": pool.error}

    def _shown(self, name: str) -> dict[str, Any]:
        pool = self.azure.pools[name]
        return {**pool.resource, "properties": {**pool.properties, "eTag": str(pool.version)}}

    def _is_busy(self) -> bool:
        if not self.azure.busy:
            return False
        self.azure.busy -= 1
        message = (
            "Another operation (Updating) is in progress, please wait for it to finish before starting a new one."
        )
        self._error(
            409, "OperationNotAllowed", f"Operation is not allowed: {message} See aka.ms/aks-pending-operation"
        )
        return True

    def _page(self, items: list[dict[str, Any]], path: str, query: str) -> None:
        """Small pages, to see that all are read."""
        query_values = urllib.parse.parse_qs(query)
        at = int(query_values.get("$skiptoken", ["0"])[0])
        page: dict[str, Any] = {"value": items[at : at + PAGE]}
        if at + PAGE < len(items):
            page["nextLink"] = f"{self.url}{path}?api-version={query_values['api-version'][0]}&$skiptoken={at + PAGE}"
        return self._json(200, page)

    def _error(self, status: int, code: str, message: str) -> None:
        self._json(status, {"error": {"code": code, "message": message}})

    def _empty(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", headers or {})

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


_NAMES = [
    (r"/openid-configuration$", "authority"),
    (r"/oauth2/", "token"),
    (r"/skus$", "skus"),
    (r"/usages$", "usages"),
    (r"/operations/", "operation"),
    (r"/agentPools/", "agent pool"),
    (r"/agentPools$", "agent pools"),
    (r"/managedClusters/[^/]+$", "cluster"),
]


def _kinds(properties: dict[str, Any]) -> list[str]:
    """Return the names of a kind of pool in tests, the most specific first."""
    size = properties["vmSize"]
    spot = " spot" if properties.get("scaleSetPriority") == "Spot" else ""
    zones = "".join(f" zone {zone}" for zone in properties.get("availabilityZones") or [])
    return list(dict.fromkeys([f"{size}{spot}{zones}", f"{size}{zones}", f"{size}{spot}", size]))
