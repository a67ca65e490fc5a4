"""A fake tracking server with the part of MLflow's REST API (2.0) that a training uses, and simulated failures.

Its routes were compared with the real ``mlflow server`` for one training.
"""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from registry_fixture import serve_http

API = "/api/2.0/mlflow/"


@dataclass
class Run:
    """A tracked run."""

    id: str
    experiment: str
    name: str
    status: str = "RUNNING"
    statuses: list[str] = field(default_factory=lambda: ["RUNNING"])
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    """Values by step."""


class MlflowServer:
    """A server on a free port, for ``with``."""

    def __init__(self, *, authorization: str = "") -> None:
        self.authorization = authorization
        """Authorization header that each call must have; empty: none."""
        self.failing: dict[str, int] = {}
        """Number of further calls that fail, by kind (``POST runs/log-batch``; empty: any)."""
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        self.calls: list[str] = []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(dict(parse_qsl(urlsplit(self.path).query)))

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                with server._lock:
                    path = urlsplit(self.path).path
                    status, content = server._respond(self.command, path, body, dict(self.headers))
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._http, address = serve_http(Handler)
        self.address = f"http://{address}"

    def __enter__(self) -> MlflowServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def run(self) -> Run:
        """The only run."""
        [run] = self.runs.values()
        return run

    def _respond(
        self, verb: str, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        call = f"{verb} {path.removeprefix(API)}"
        self.calls.append(call)
        for kind in (kind for kind in ("", call) if self.failing.get(kind)):
            self.failing[kind] -= 1
            return 400, {"error_code": "INTERNAL_ERROR", "message": "simulated failure"}
        if self.authorization and headers.get("Authorization") != self.authorization:
            return 401, {"error_code": "UNAUTHENTICATED", "message": "who are you?"}
        if call not in ROUTES:
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": call}
        try:
            return 200, ROUTES[call](self, body)
        except KeyError as missing:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"there is no {missing}"}
        except ValueError as error:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": str(error)}


def _experiment_by_name(server: MlflowServer, body: dict[str, Any]) -> dict[str, Any]:
    return _experiment(server, {"experiment_id": server.experiments[body["experiment_name"]]})


def _experiment(server: MlflowServer, body: dict[str, Any]) -> dict[str, Any]:
    name = {number: name for name, number in server.experiments.items()}[body["experiment_id"]]
    known = {"experiment_id": body["experiment_id"], "name": name, "lifecycle_stage": "active"}
    return {"experiment": {**known, "artifact_location": f"mlflow-artifacts:/{body['experiment_id']}"}}


def _new_experiment(server: MlflowServer, body: dict[str, Any]) -> dict[str, Any]:
    number = str(len(server.experiments) + 1)
    server.experiments[body["name"]] = number
    return {"experiment_id": number}


def _experiments(server: MlflowServer, body: dict[str, Any]) -> dict[str, Any]:
    return {"experiments": [_experiment_by_name(server, {"experiment_name": name}) for name in server.experiments]}


def _new_run(server: MlflowServer, body: dict[str, Any]) -> dict[str, Any]:
    run = Run(uuid.uuid4().hex, body["experiment_id"], body.get("run_name", ""))
    server.runs[run.id] = run
    return {"run": _describe(run)}


def _get_run(server: MlflowServer, body: dict[str, Any]) -> dict[str, Any]:
    return {"run": _describe(server.runs[body["run_id"]])}


def _update_run(server: MlflowServer, body: dict[str, Any]) -> dict[str, Any]:
    run = server.runs[body["run_id"]]
    run.status = body["status"]
    run.statuses.append(run.status)
    return {"run_info": _describe(run)["info"]}


def _log_batch(server: MlflowServer, body: dict[str, Any]) -> dict[str, Any]:
    run = server.runs[body["run_id"]]
    for param in body.get("params", []):
        if run.params.setdefault(param["key"], param["value"]) != param["value"]:
            raise ValueError(f"Changing param values is not allowed: {param['key']}")
    for metric in body.get("metrics", []):
        run.metrics.setdefault(metric["key"], {})[int(metric.get("step", 0))] = metric["value"]
    return {}


def _describe(run: Run) -> dict[str, Any]:
    info = {"run_id": run.id, "run_uuid": run.id, "run_name": run.name, "experiment_id": run.experiment}
    info |= {"status": run.status, "lifecycle_stage": "active", "start_time": 1, "artifact_uri": "mlflow-artifacts:/1"}
    return {"info": info, "data": {"params": [{"key": key, "value": value} for key, value in run.params.items()]}}


ROUTES = {
    "GET experiments/get-by-name": _experiment_by_name,
    "GET experiments/get": _experiment,
    "GET experiments/search": _experiments,
    "POST experiments/create": _new_experiment,
    "POST runs/create": _new_run,
    "GET runs/get": _get_run,
    "POST runs/update": _update_run,
    "POST runs/log-batch": _log_batch,
}
