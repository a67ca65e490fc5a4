"""Arguments, environment, directory and files of an attempt."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.runtime import files, pod, progress, termination
from workflows.argo.tags import Scope, Unresolved, substitute
from workflows.argo.workflow import Container, Env, Spec, Template, Workflow
from workflows.errors import Problem
from workflows.runner import free_text
from workflows.runner.process import MARKER
from workflows.runner.scope import pod_name
from workflows.runner.state import Run
from workflows.runner.volumes import Mounts, create_mounts

GRACE_SECONDS = 30.0
"""Default time between SIGTERM and SIGKILL (Kubernetes: ``terminationGracePeriodSeconds``)."""

_REFERENCE = re.compile(r"\$(?:(\$)|\(([^)]*)\))")


@dataclass(frozen=True)
class Launch:
    """An attempt that is ready to start."""

    argv: list[str]
    folder: Path
    environment: dict[str, str]
    log: Path
    stdout: Path | None
    """File of standard output when it is read as ``outputs.result``; None when it goes to the log."""
    progress: Path
    termination: Path
    """File of the termination message."""
    inputs: list[Path]
    """Files that exist while the attempt runs."""
    outputs: dict[str, Path]
    artifacts: dict[str, Path]
    grace: float

    @property
    def logs(self) -> list[Path]:
        """The files of its output."""
        return [self.log, *([self.stdout] if self.stdout else [])]


def prepare(
    spec: Spec,
    template: Template,
    run: Run,
    key: str,
    number: int,
    tags: Scope,
    *,
    volumes: Mapping[str, Path],
    with_result: bool,
) -> Launch:
    """Create the directories of an attempt and return its launch.

    Args:
        spec: the workflow.
        template: a container template.
        run: the run.
        key: key of the node.
        number: number of the attempt.
        tags: values of the tags.
        volumes: directories by name of the claim, secret, configMap or volume.
        with_result: capture standard output as ``outputs.result``.

    Raises:
        Unresolved: a tag has no value, or a path is not inside a mount.
        OSError: a directory cannot be created.
    """
    container = template.container
    if container is None:
        raise ValueError(f"template {template.name} has no container")
    folder = run.node_folder(key)
    private = folder / f"attempt-{number}"
    private.mkdir(parents=True, exist_ok=True)
    mounts = create_mounts(spec, template, _with_paths(container, tags), run.folder, private, volumes)

    def resolve(text: str) -> str:
        return mounts.rewrite(substitute(mounts.rewrite(text), tags), persistent=True)

    variables = _variables(container.env, resolve)
    argv = words(container, mounts, tags, variables)
    environment = {
        "PYTHONUNBUFFERED": "1",
        **{name: value for name, value in os.environ.items() if name != pod.VARIABLE},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **variables,
        progress.FILE_VARIABLE: str(private / "progress"),
        termination.FILE_VARIABLE: str(private / "termination-log"),
        "ARGO_NODE_ID": pod_name(run.state, key),
        MARKER: marker(run, key),
    }
    inputs = _write_inputs(template, mounts, tags, private)
    grace = next((g for g in (template.pod_spec_patch, spec.pod_spec_patch) if g is not None), GRACE_SECONDS)
    return Launch(
        argv=argv,
        folder=_working_dir(container, mounts, tags) or folder,
        environment=environment,
        log=_create_file(folder / f"attempt-{number}.log"),
        stdout=_create_file(folder / f"attempt-{number}.stdout") if with_result else None,
        progress=private / "progress",
        termination=_create_file(private / "termination-log"),
        inputs=inputs,
        outputs=_output_files(template, mounts, tags),
        artifacts=_artifact_paths(template, mounts, tags),
        grace=float(grace),
    )


def words(container: Container, mounts: Mounts, tags: Scope, variables: Mapping[str, str]) -> list[str]:
    """Return command and arguments for this machine, with paths of mounts as its directories."""
    templates = [*container.command, *container.args]
    texts = free_text.positions(templates)
    argv = []
    for idx, template in enumerate(templates):
        word = substitute(template if idx in texts else mounts.rewrite(template), tags)
        argv.append(_expand(word if idx in texts else mounts.rewrite(word, persistent=True), variables))
    argv[0] = sys.executable if argv[0] in ("python", "python3") else argv[0]
    return argv


def marker(run: Run, key: str) -> str:
    """Return the value of ``MARKER`` for the processes of a node."""
    return f"{run.state.uid}/{key}"


def check_environment(workflow: Workflow) -> list[Problem]:
    """Return the variables from a Secret or ConfigMap that are missing from the environment of this process."""
    problems = []
    for template in workflow.spec.templates:
        for variable in template.container.env if template.container else []:
            source = variable.value_from
            reference = source and (source.secret_key_ref or source.config_map_key_ref)
            if reference and not reference.optional and variable.name not in os.environ:
                message = f"the value is in `{reference.name}` on a cluster; the environment variable is not set"
                path = f"template `{template.name}`, env `{variable.name}`"
                problems.append(Problem(message, path=path, fix=f"export {variable.name}=... and run again"))
    return list(dict.fromkeys(problems))


def _with_paths(container: Container, tags: Scope) -> Container:
    """Return the container with the tags in its mounts replaced."""
    mounts = [
        {"name": mount.name, "mountPath": mount.mount_path, "subPath": mount.sub_path}
        for mount in container.volume_mounts
    ]
    return Container.model_validate({"command": container.command, "volumeMounts": substitute(mounts, tags)})


def _variables(env: Sequence[Env], resolve: Callable[[str], str]) -> dict[str, str]:
    """Return the container's variables; those from a Secret or ConfigMap come from this process's environment."""
    variables: dict[str, str] = {}
    for variable in env:
        if variable.value_from is None:
            variables[variable.name] = _expand(resolve(variable.value), variables)
        elif variable.name in os.environ:
            variables[variable.name] = os.environ[variable.name]
    return variables


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """Expand ``$(NAME)`` as Kubernetes does; ``$$`` becomes ``$``, unknown names stay."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] else variables.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def _working_dir(container: Container, mounts: Mounts, tags: Scope) -> Path | None:
    if not container.working_dir:
        return None
    path = substitute(container.working_dir, tags)
    directory = mounts.host_path(path)
    if directory is None:
        raise Unresolved(f"workingDir {path} is not inside a volume mount")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _output_files(template: Template, mounts: Mounts, tags: Scope) -> dict[str, Path]:
    files = {}
    for output in template.outputs.parameters:
        path = output.value_from.path if output.value_from else ""
        files[output.name] = _host_path(path, f"outputs.parameters.{output.name}", mounts, tags)
        files[output.name].parent.mkdir(parents=True, exist_ok=True)
    return files


def _write_inputs(template: Template, mounts: Mounts, tags: Scope, private: Path) -> list[Path]:
    """Write the files that the document contains; return those to delete when the attempt ends.

    They can have queries of URLs, which grant access: only the owner can read them, while the attempt runs. Files on a
    volume stay: other pods can read them, and their owner can be the user. Those of killed attempts are deleted.
    """
    written = []
    for artifact in template.inputs.artifacts:
        if artifact.raw is None:
            continue
        path = _host_path(artifact.path, f"inputs.artifacts.{artifact.name}", mounts, tags)
        if path.is_relative_to(private):
            for earlier in private.parent.glob("attempt-*/"):
                (earlier / path.relative_to(private)).unlink(missing_ok=True)
            written.append(path)
        files.write_text(path, substitute(artifact.raw.data, tags), private=True)
    return written


def _artifact_paths(template: Template, mounts: Mounts, tags: Scope) -> dict[str, Path]:
    return {
        artifact.name: _host_path(artifact.path, f"outputs.artifacts.{artifact.name}", mounts, tags)
        for artifact in template.outputs.artifacts
    }


def _host_path(path: str, field: str, mounts: Mounts, tags: Scope) -> Path:
    path = substitute(path, tags)
    host_path = mounts.host_path(path)
    if host_path is None:
        raise Unresolved(f"{field}: {path} is not inside a volume mount")
    return host_path


def _create_file(path: Path) -> Path:
    path.touch()
    return path
