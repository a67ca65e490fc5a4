"""Every volume is a folder on one machine, and words that begin with a mount path are rewritten to it.

- ``volumeClaimTemplates``: ``RUN/volumes/NAME``
- ``persistentVolumeClaim``: the folder given for the claim, else ``$ARGOTUNE_HOME/volumes/CLAIM``
- ``emptyDir``: under the folder of the node's attempt, so it begins empty as in a new pod
- ``hostPath``: the folder itself
- ``secret``, ``configMap`` and what only a cluster can mount (``nfs``, ``csi``...): the folder given for it
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.argo.workflow import Container, Files, Spec, Template, Volume, Workflow
from workflows.errors import Problem


@dataclass(frozen=True)
class Folder:
    """One mount of an attempt: ``path`` in the container is ``folder`` here."""

    path: str
    folder: Path
    lasting: bool
    """Not an ``emptyDir``: what is in it may come from elsewhere."""


@dataclass(frozen=True)
class Mounts:
    """The mounts of one attempt, those with the longest path first."""

    folders: Sequence[Folder]

    def host_path(self, path: str, *, lasting: bool = False) -> Path | None:
        """The folder or file here that ``path`` in the container stands for; None when no mount holds it."""
        path = posixpath.normpath(path)
        for mounted in self.folders:
            if path == mounted.path or path.startswith(mounted.path.rstrip("/") + "/"):
                here = mounted.folder / path[len(mounted.path) :].lstrip("/")
                return here if mounted.lasting or not lasting else None
        return None

    def rewrite(self, word: str, *, lasting: bool = False) -> str:
        """A word of a command with the mount path at its beginning replaced by the folder here.

        The beginning of the value in ``--flag=/mnt/x``, and of the entries of a JSON list, counts as well. A word
        that already lies in one of the folders here (a step's output may say so) stays. ``lasting`` leaves
        ``emptyDir`` alone: what is new in each attempt can't hold what another one names.
        """
        if word.startswith("/"):
            if any(Path(word).is_relative_to(mounted.folder) for mounted in self.folders):
                return word
            mapped = self.host_path(word, lasting=lasting)
            return word if mapped is None else f"{mapped}/" if word.endswith("/") else str(mapped)
        if word.startswith("-") and "=/" in word:
            flag, _, value = word.partition("=")
            return f"{flag}={self.rewrite(value, lasting=lasting)}"
        if word.startswith("[") and '"/' in word:
            return self._rewrite_list(word, lasting)
        return word

    def _rewrite_list(self, word: str, lasting: bool) -> str:
        try:
            items: list[Any] = json.loads(word)
        except ValueError:
            return word
        new = [
            self.rewrite(item, lasting=lasting) if isinstance(item, str) and item.startswith("/") else item
            for item in items
        ]
        return word if new == items else json.dumps(new, ensure_ascii=False)


def home() -> Path:
    """Where what outlives runs is kept: ``$ARGOTUNE_HOME``, by default ``~/.argotune``."""
    return Path(os.environ.get("ARGOTUNE_HOME") or Path.home() / ".argotune").absolute()


def problems(workflow: Workflow, given: Mapping[str, Path]) -> list[Problem]:
    """What this machine lacks to mount the volumes of a workflow, and folders given for nothing."""
    found = []
    volumes = [*workflow.spec.volumes, *(volume for t in workflow.spec.templates for volume in t.volumes)]
    names = {_name(volume) for volume in volumes}
    for name, folder in given.items():
        if name not in names:
            known = ", ".join(sorted(filter(None, names))) or "none"
            found.append(Problem(f"no volume is called `{name}`", path="volumes", fix=f"the document has: {known}"))
        elif not folder.is_dir():
            found.append(Problem(f"the folder given for `{name}` isn't there: {folder}", path="volumes"))
    mounted = {mount.name for t in workflow.spec.templates if t.container for mount in t.container.volume_mounts}
    for volume in volumes:
        files = volume.secret or volume.config_map
        if volume.name not in mounted or volume.persistent_volume_claim or not _name(volume):
            continue
        if _name(volume) not in given and not (files and files.optional):
            found.append(_missing(volume))
        elif files and _name(volume) in given and given[_name(volume)].is_dir():
            found += _missing_files(volume, files, given[_name(volume)])
    return list(dict.fromkeys(found))


def mount(
    spec: Spec, template: Template, container: Container, run: Path, attempt: Path, given: Mapping[str, Path]
) -> Mounts:
    """The mounts of one attempt, their folders made."""
    claims = {claim.metadata.name: run / "volumes" / claim.metadata.name for claim in spec.volume_claim_templates}
    volumes = {volume.name: volume for volume in [*spec.volumes, *template.volumes]}
    folders = []
    for wanted in container.volume_mounts:
        volume = volumes.get(wanted.name)
        folder = (claims[wanted.name] if volume is None else _folder(volume, attempt, given)) / wanted.sub_path
        if not folder.exists():
            folder.mkdir(parents=True)
        lasting = volume is None or volume.empty_dir is None
        folders.append(Folder(posixpath.normpath(wanted.mount_path), folder.absolute(), lasting))
    return Mounts(sorted(folders, key=lambda folder: len(folder.path), reverse=True))


def _name(volume: Volume) -> str:
    """The name under which a folder can be given for a volume; empty when none is needed."""
    if volume.persistent_volume_claim:
        return volume.persistent_volume_claim.claim_name
    if volume.secret:
        return volume.secret.secret_name
    if volume.config_map:
        return volume.config_map.name
    return volume.name if volume.elsewhere else ""


def _missing(volume: Volume) -> Problem:
    kind = "secret" if volume.secret else "configMap" if volume.config_map else volume.elsewhere
    name = _name(volume)
    return Problem(
        f"the {kind} `{name}` isn't on this machine",
        path=f"spec.volumes[{volume.name}]",
        fix=f"give a folder that holds its files: --volume {name}=FOLDER",
    )


def _missing_files(volume: Volume, files: Files, folder: Path) -> list[Problem]:
    lacking = [item for item in files.items if not (folder / item.key).exists() and not (folder / item.path).exists()]
    return [
        Problem(f"{folder} lacks `{item.key}`", path=f"spec.volumes[{volume.name}]", fix=f"or a file `{item.path}`")
        for item in lacking
        if not files.optional
    ]


def _folder(volume: Volume, attempt: Path, given: Mapping[str, Path]) -> Path:
    if volume.persistent_volume_claim:
        name = volume.persistent_volume_claim.claim_name
        return given.get(name) or home() / "volumes" / name
    if volume.host_path:
        return Path(volume.host_path.path)
    files = volume.secret or volume.config_map
    if files and files.items and _name(volume) in given:
        return _named_files(files, given[_name(volume)], attempt / "volumes" / volume.name)
    return given.get(_name(volume)) or attempt / "volumes" / volume.name


def _named_files(files: Files, source: Path, folder: Path) -> Path:
    """A folder in which the chosen keys have the file names asked for. Links, so that no secret is copied."""
    for item in files.items:
        file = next((source / name for name in (item.key, item.path) if (source / name).exists()), None)
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if file and not target.is_symlink():
            target.symlink_to(file.absolute())
    return folder
