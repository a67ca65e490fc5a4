"""Volumes as local directories: arguments that begin with a mount path are rewritten to the directory.

- ``volumeClaimTemplates``: ``RUN/volumes/NAME``
- ``persistentVolumeClaim``: the directory set for the claim, else ``$ARGOTUNE_HOME/volumes/CLAIM``
- ``emptyDir``: in the directory of the attempt, so it is empty at first, as in a new pod
- ``hostPath``: the directory itself
- ``secret``, ``configMap`` and ``projected`` of both: the directories set for them, by their names
- types that only a cluster can mount (``nfs``, ``csi``...): the directory set for the volume
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.argo.workflow import Container, Files, Spec, Template, Volume, Workflow
from workflows.errors import Problem, use_one_of


@dataclass(frozen=True)
class Folder:
    """A mount of an attempt: ``path`` in the container is ``folder`` on this machine."""

    path: str
    folder: Path
    persistent: bool
    """True unless it is an ``emptyDir``: other attempts and steps can write to it."""


@dataclass(frozen=True)
class Mounts:
    """The mounts of an attempt, longest path first."""

    folders: Sequence[Folder]

    def host_path(self, path: str, *, persistent: bool = False) -> Path | None:
        """Return the local path of ``path`` in the container; None when it is not inside a mount.

        ``persistent`` excludes ``emptyDir`` mounts.
        """
        path = posixpath.normpath(path)
        for mounted in self.folders:
            if path == mounted.path or path.startswith(mounted.path.rstrip("/") + "/"):
                host_path = mounted.folder / path[len(mounted.path) :].lstrip("/")
                return host_path if mounted.persistent or not persistent else None
        return None

    def rewrite(self, word: str, *, persistent: bool = False) -> str:
        """Replace a mount path at the start of an argument by the local directory.

        This includes the value in ``--flag=/mnt/x`` and the items of a JSON list. An argument that is already
        inside one of the directories, such as a step's output, stays. ``persistent`` excludes ``emptyDir`` mounts:
        a path from another attempt cannot refer to a directory that is new in each attempt.
        """
        if word.startswith("/"):
            if any(Path(word).is_relative_to(mounted.folder) for mounted in self.folders):
                return word
            mapped = self.host_path(word, persistent=persistent)
            return word if mapped is None else f"{mapped}/" if word.endswith("/") else str(mapped)
        if word.startswith("-") and "=/" in word:
            flag, _, value = word.partition("=")
            return f"{flag}={self.rewrite(value, persistent=persistent)}"
        if word.startswith("[") and '"/' in word:
            return self._rewrite_list(word, persistent)
        return word

    def _rewrite_list(self, word: str, persistent: bool) -> str:
        try:
            items: list[Any] = json.loads(word)
        except ValueError:
            return word
        new = [
            self.rewrite(item, persistent=persistent) if isinstance(item, str) and item.startswith("/") else item
            for item in items
        ]
        return word if new == items else json.dumps(new, ensure_ascii=False)


def home() -> Path:
    """Return the directory of data that outlives runs: ``$ARGOTUNE_HOME``, default ``~/.argotune``."""
    return Path(os.environ.get("ARGOTUNE_HOME") or Path.home() / ".argotune").absolute()


def check_volumes(workflow: Workflow, directories: Mapping[str, Path]) -> list[Problem]:
    """Return the volumes without a directory, and the directories without a volume."""
    problems = []
    volumes = [*workflow.spec.volumes, *(volume for t in workflow.spec.templates for volume in t.volumes)]
    names = {name for volume in volumes for name in _names(volume)}
    for name, folder in directories.items():
        if name not in names:
            fix = use_one_of(sorted(filter(None, names)), f"remove --volume {name}")
            problems.append(Problem(f"unknown volume `{name}`", path="volumes", fix=fix))
        elif not folder.is_dir():
            is_data = any(name in _names(volume) and volume.name in _data_volumes(workflow) for volume in volumes)
            problems.append(_no_directory(name, folder, is_data=is_data))
    mounts = [mount for t in workflow.spec.templates if t.container for mount in t.container.volume_mounts]
    mounted = {mount.name for mount in mounts}
    filled_by_steps = {mount.name for mount in mounts if not mount.read_only}
    for volume in volumes:
        if volume.name not in mounted:
            continue
        if volume.persistent_volume_claim:
            claim = volume.persistent_volume_claim.claim_name
            is_filled = volume.name in filled_by_steps or claim in directories or _has_files(own_folder(claim))
            if not is_filled:
                problems.append(_missing(volume, "persistentVolumeClaim", claim))
            continue
        if volume.cluster_type and volume.name not in directories:
            problems.append(_missing(volume, volume.cluster_type, volume.name))
        for kind, name, files in _files(volume):
            if name not in directories and not files.optional:
                problems.append(_missing(volume, kind, name))
            elif name in directories and directories[name].is_dir():
                problems += _missing_files(volume, files, directories[name])
    return list(dict.fromkeys(problems))


def create_mounts(
    spec: Spec, template: Template, container: Container, run: Path, attempt: Path, directories: Mapping[str, Path]
) -> Mounts:
    """Create the directories of an attempt's mounts and return the mounts."""
    claims = {claim.metadata.name: run / "volumes" / claim.metadata.name for claim in spec.volume_claim_templates}
    volumes = {volume.name: volume for volume in [*spec.volumes, *template.volumes]}
    folders = []
    for mount in container.volume_mounts:
        volume = volumes.get(mount.name)
        folder = (claims[mount.name] if volume is None else _folder(volume, attempt, directories)) / mount.sub_path
        if not folder.exists():
            folder.mkdir(parents=True)
        persistent = volume is None or volume.empty_dir is None
        folders.append(Folder(posixpath.normpath(mount.mount_path), folder.absolute(), persistent))
    return Mounts(sorted(folders, key=lambda folder: len(folder.path), reverse=True))


def _names(volume: Volume) -> list[str]:
    """Return the names by which directories are set for a volume; none when none is needed."""
    if volume.persistent_volume_claim:
        return [volume.persistent_volume_claim.claim_name]
    return [volume.name] if volume.cluster_type else [name for _, name, _ in _files(volume)]


def _files(volume: Volume) -> list[tuple[str, str, Files]]:
    """Return the Secrets and ConfigMaps of a volume, each with its kind and name."""
    sources = volume.projected.sources if volume.projected else [volume]
    secrets = [("secret", source.secret) for source in sources]
    config_maps = [("configMap", source.config_map) for source in sources]
    return [(kind, files.secret_name or files.name, files) for kind, files in [*secrets, *config_maps] if files]


def _missing(volume: Volume, kind: str, name: str) -> Problem:
    return Problem(
        f"the {kind} `{name}` has no local directory",
        path=f"spec.volumes[{volume.name}]",
        fix=f"pass a directory with its files: --volume {name}=DIRECTORY",
    )


def _data_volumes(workflow: Workflow) -> set[str]:
    """Return the names of the volumes with training rows: the step download reads them."""
    readers = [template.container for template in workflow.spec.templates if template.name == "download"]
    return {mount.name for reader in readers if reader for mount in reader.volume_mounts if mount.read_only}


def _no_directory(name: str, folder: Path, *, is_data: bool) -> Problem:
    if folder.exists():
        fix = f"pass its directory: --volume {name}={folder.parent}"
        if is_data:
            fix += f", and select the file with pipeline.data.pattern: {glob.escape(folder.name)}"
        return Problem(f"volume `{name}` needs a directory, and {folder} is a file", path="volumes", fix=fix)
    message = f"the directory for volume `{name}` does not exist: {folder}"
    return Problem(message, path="volumes", fix=f"create it, or correct the path: --volume {name}=DIRECTORY")


def own_folder(claim: str) -> Path:
    """Return the directory of a claim for which none is set."""
    return home() / "volumes" / claim


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _missing_files(volume: Volume, files: Files, folder: Path) -> list[Problem]:
    missing = [item for item in files.items if not (folder / item.key).exists() and not (folder / item.path).exists()]
    return [
        Problem(f"`{item.key}` not found in {folder}", path=f"spec.volumes[{volume.name}]", fix=f"add `{item.path}`")
        for item in missing
        if not files.optional
    ]


def _folder(volume: Volume, attempt: Path, directories: Mapping[str, Path]) -> Path:
    if volume.persistent_volume_claim:
        name = volume.persistent_volume_claim.claim_name
        return directories.get(name) or own_folder(name)
    if volume.host_path:
        return Path(volume.host_path.path)
    own = attempt / "volumes" / volume.name
    files = [(files, directories[name]) for _, name, files in _files(volume) if name in directories]
    if volume.projected or any(part.items for part, _ in files):
        for part, source in files:
            _link_files(part, source, own)
        return own
    return next((directories[name] for name in _names(volume) if name in directories), own)


def _link_files(files: Files, source: Path, folder: Path) -> None:
    """Link the selected keys (none: all of them) in a directory: symbolic links, so that no secret is copied."""
    all_keys = () if files.items else [(file.name, file.name) for file in source.iterdir() if file.is_file()]
    for key, path in [*((item.key, item.path) for item in files.items), *all_keys]:
        file = next((source / name for name in (key, path) if (source / name).exists()), None)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if file and not target.is_symlink():
            target.symlink_to(file.absolute())
