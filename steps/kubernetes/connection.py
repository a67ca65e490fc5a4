"""The connection to a Kubernetes API server: address, credentials and single requests.

The official client brings the credentials (service account, kubeconfig, exec plugins, certificates, proxies). Its own
retries are off, since they hide what the server responds, and its generated methods are not used: they neither time
out nor tell a dropped watch from an ended one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from steps.runtime.errors import BadInput
from steps.runtime.pod import SERVICE_ACCOUNT, is_pod
from steps.runtime.redaction import redact

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Connection:
    """An API server, and the namespace that its credentials are for."""

    api: ApiClient
    namespace: str

    @property
    def url(self) -> str:
        """Address of the API server."""
        return str(self.api.configuration.host)

    @property
    def host(self) -> str:
        """Name or IP address of the API server."""
        return urlsplit(self.url).hostname or ""

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any = None,
        *,
        content_type: str = JSON,
        timeout: tuple[float, float],
    ) -> Iterator[Any]:
        """Send one request; yield the urllib3 response of any status, with its body unread.

        Args:
            method: HTTP method.
            path: Path of the API, quoted.
            query: Parameters; empty ones are omitted.
            body: Object to send as JSON, or None.
            content_type: Media type of the body.
            timeout: Seconds to connect, and between bytes of the response.

        Raises:
            kubernetes.config.ConfigException: the program of the kubeconfig returned no credentials.
            kubernetes.client.ApiException: the TLS connection failed.
            urllib3.exceptions.HTTPError, OSError: the connection failed.
        """
        headers = {"Accept": JSON, "User-Agent": "argotune"} | (
            {"Content-Type": content_type} if body is not None else {}
        )
        parameters = [(key, value) for key, value in query.items() if value]
        response = None
        try:
            self.api.update_params_for_auth(headers, parameters, ["BearerToken"], path, method, body)
            url = self.url + path + (f"?{urlencode(parameters)}" if parameters else "")
            response = self.api.call_api(method, url, headers, body, None, timeout).response
            yield response
        finally:
            if response is not None:
                if not response.isclosed():
                    # The rest of an unread stream must not become the next response of the connection.
                    response.close()
                response.release_conn()

    def open_port(self, pod: str, namespace: str, port: int) -> Any:
        """Return a socket that is connected to a port of a pod, through the API server.

        Raises:
            BadInput: the API server rejects it.
        """
        from kubernetes.client import ApiClient, ApiException, CoreV1Api
        from kubernetes.stream import portforward

        # The stream replaces the client's request function, so it gets a separate client.
        api = CoreV1Api(ApiClient(self.api.configuration))
        try:
            forwarded = portforward(api.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
        except ApiException as error:
            reason, fix = _explain_handshake(str(error.reason or error.status))
            raise BadInput(f"cannot connect to port {port} of pod {pod}: {reason}", fix) from None
        return forwarded.socket(port)


_HEADER_TEXT = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
"""Field values in RFC 9110, section 5.5."""


def _explain_handshake(text: str) -> tuple[str, str]:
    """Return reason and fix of a refused websocket; the library's text has all headers of the response."""
    match = re.match(r"Handshake status (\d{3}) ?([^-\r\n]*)", text)
    if match is None:
        return " ".join(text.split())[:200], "check that the API server is reachable"
    if match[1] == "404":
        return "the pod does not exist any more", "try again"
    fix = "grant create and get of pods/portforward (Role argotune-client)"
    return f"{match[1]} {match[2]}".strip(), fix if match[1] in ("401", "403") else "check that the pod is running"


def has_service_account() -> bool:
    """Return True if the service account of this pod leads to the cluster: no kubeconfig is set."""
    return is_pod() and not os.environ.get("KUBECONFIG")


def kubeconfig_path() -> str:
    """Return ``$KUBECONFIG`` or its default; the library reads it once, when it is imported."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def from_service_account() -> Connection:
    """Return the connection of this pod's service account.

    Raises:
        kubernetes.config.ConfigException, OSError: its token or certificate is missing.
    """
    from kubernetes import config

    configuration = _new_configuration()
    config.load_incluster_config(client_configuration=configuration)
    return _connect(configuration, (SERVICE_ACCOUNT / "namespace").read_text().strip())


def from_kubeconfig(path: str, context: Mapping[str, Any]) -> Connection:
    """Return the connection of a context of a kubeconfig, as ``list_kube_config_contexts`` returns it.

    Raises:
        Exception: the kubeconfig is incomplete.
    """
    from kubernetes import config

    configuration = _new_configuration()
    config.load_kube_config(path, context=context["name"], client_configuration=configuration, persist_config=False)
    return _connect(configuration, str((context.get("context") or {}).get("namespace") or "default"))


def describe_problem(error: Exception) -> str:
    """Return why a kubeconfig or a service account cannot be used, in one line without credentials."""
    import yaml
    from kubernetes import config

    if isinstance(error, config.ConfigException | yaml.YAMLError | OSError):
        return " ".join(str(redact(str(error))).split())[:500]
    # The library reads any YAML, and fails with errors about types of Python.
    return f"it is not a complete kubeconfig ({type(error).__name__})"


def _new_configuration() -> Configuration:
    from kubernetes import client

    return client.Configuration()


def _connect(configuration: Configuration, namespace: str) -> Connection:
    from kubernetes import client, config

    credentials = [*configuration.api_key.values(), configuration.username, configuration.password]
    if any(not _HEADER_TEXT.fullmatch(str(text or "")) for text in credentials):
        raise config.ConfigException("its token, user name or password has characters that no HTTP header can have")
    # False, not 0: it also keeps urllib3 from following redirects with the token.
    configuration.retries = False
    return Connection(client.ApiClient(configuration), namespace)
