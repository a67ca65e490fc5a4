"""What one attempt of a leaf is started with: words, environment, folder, and the files in which it is watched."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workflows.argo.tags import Scope, Unresolved, substitute
from workflows.argo.workflow import Container, Env, Spec, Template, Workflow
from workflows.errors import Problem
from workflows.runner.process import MARKER
from workflows.runner.scope import pod_name
from workflows.runner.state import Run
from workflows.runner.volumes import Mounts, mount

GRACE_SECONDS = 30.0
"""Between SIGTERM and SIGKILL when the document doesn't say (Kubernetes: ``terminationGracePeriodSeconds``)."""

IN_A_POD = "KUBERNETES_SERVICE_HOST"
"""Set by the kubelet. Steps that find it ask the cluster; here they are to use this machine, even in a pod."""
_REFERENCE = re.compile(r"\$(\$?)\(([^)\s]+)\)")


@dataclass(frozen=True)
class Launch:
    """One attempt, ready to be started."""

    words: list[str]
    folder: Path
    environment: dict[str, str]
    log: Path
    stdout: Path | None
    """Where standard output goes instead of the log, when it is to be read as ``outputs.result``."""
    progress: Path
    outputs: dict[str, Path]
    artifacts: dict[str, Path]
    grace: float

    @property
    def logs(self) -> list[Path]:
        """The files its output goes to."""
        return [self.log, *([self.stdout] if self.stdout else [])]


def prepare(
    spec: Spec,
    template: Template,
    run: Run,
    key: str,
    number: int,
    tags: Scope,
    *,
    given: Mapping[str, Path],
    with_result: bool,
) -> Launch:
    """Make the folders of the attempt ``number`` of a node, and find out how to start it.

    Raises:
        Unresolved: a tag has no value, or a path is under no mount.
        OSError: a folder can't be made.
    """
    container = template.container
    if container is None:
        raise ValueError(f"template {template.name} is no leaf")
    folder = run.node_folder(key)
    private = folder / f"attempt-{number}"
    private.mkdir(parents=True, exist_ok=True)
    mounts = mount(spec, template, _with_paths(container, tags), run.folder, private, given)

    def word(text: str) -> str:
        return mounts.rewrite(substitute(mounts.rewrite(text), tags), lasting=True)

    variables = _variables(container.env, word)
    words = [_expand(word(text), variables) for text in (*container.command, *container.args)]
    words[0] = sys.executable if words[0] in ("python", "python3") else words[0]
    environment = {
        "PYTHONUNBUFFERED": "1",
        **{name: value for name, value in os.environ.items() if name != IN_A_POD},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **variables,
        "ARGO_PROGRESS_FILE": str(private / "progress"),
        "ARGO_NODE_ID": pod_name(run.state, key),
        MARKER: marker(run, key),
    }
    grace = next((g for g in (template.pod_spec_patch, spec.pod_spec_patch) if g is not None), GRACE_SECONDS)
    return Launch(
        words=words,
        folder=_working_dir(container, mounts, tags) or folder,
        environment=environment,
        log=_made(folder / f"attempt-{number}.log"),
        stdout=_made(folder / f"attempt-{number}.stdout") if with_result else None,
        progress=private / "progress",
        outputs=_output_files(template, mounts, tags),
        artifacts=_artifact_paths(template, mounts, tags),
        grace=float(grace),
    )


def marker(run: Run, key: str) -> str:
    """By what the processes of a node are known in the environment they carry."""
    return f"{run.state.uid}/{key}"


def problems(workflow: Workflow) -> list[Problem]:
    """Environment values that come from a Secret or ConfigMap and that this machine's environment lacks."""
    found = []
    for template in workflow.spec.templates:
        for variable in template.container.env if template.container else []:
            source = variable.value_from
            reference = source and (source.secret_key_ref or source.config_map_key_ref)
            if reference and not reference.optional and variable.name not in os.environ:
                what = f"its value is in `{reference.name}` of the cluster, and not in the environment here"
                path = f"template `{template.name}`, env `{variable.name}`"
                found.append(Problem(what, path=path, fix=f"export {variable.name}=... and run again"))
    return list(dict.fromkeys(found))


def _with_paths(container: Container, tags: Scope) -> Container:
    """The container with the tags in its mounts replaced."""
    mounts = [
        {"name": mount.name, "mountPath": mount.mount_path, "subPath": mount.sub_path}
        for mount in container.volume_mounts
    ]
    return Container.model_validate({"command": container.command, "volumeMounts": substitute(mounts, tags)})


def _variables(given: Sequence[Env], word: Callable[[str], str]) -> dict[str, str]:
    """The container's environment; what comes from a Secret or ConfigMap is taken from the caller's."""
    variables: dict[str, str] = {}
    for variable in given:
        if variable.value_from is None:
            variables[variable.name] = _expand(word(variable.value), variables)
        elif variable.name in os.environ:
            variables[variable.name] = os.environ[variable.name]
    return variables


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' own ``$(NAME)`` in commands and values; ``$$(NAME)`` stands for itself, so do unknown names."""

    def value(match: re.Match[str]) -> str:
        return match[0][1:] if match[1] else variables.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def _working_dir(container: Container, mounts: Mounts, tags: Scope) -> Path | None:
    if not container.working_dir:
        return None
    path = substitute(container.working_dir, tags)
    here = mounts.host_path(path)
    if here is None:
        raise Unresolved(f"workingDir {path} is not under a volume mount")
    here.mkdir(parents=True, exist_ok=True)
    return here


def _output_files(template: Template, mounts: Mounts, tags: Scope) -> dict[str, Path]:
    files = {}
    for output in template.outputs.parameters:
        path = substitute(output.value_from.path, tags) if output.value_from else ""
        here = mounts.host_path(path)
        if here is None:
            raise Unresolved(f"outputs.parameters.{output.name}: {path} is not under a volume mount")
        files[output.name] = here
        here.parent.mkdir(parents=True, exist_ok=True)
    return files


def _artifact_paths(template: Template, mounts: Mounts, tags: Scope) -> dict[str, Path]:
    paths = {}
    for artifact in template.outputs.artifacts:
        path = substitute(artifact.path, tags)
        here = mounts.host_path(path)
        if here is None:
            raise Unresolved(f"outputs.artifacts.{artifact.name}: {path} is not under a volume mount")
        paths[artifact.name] = here
    return paths


def _made(path: Path) -> Path:
    path.touch()
    return path
