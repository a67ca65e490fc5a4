"""Files under ``/data`` of an image, which is all that KAITO takes from an adapter or dataset image.

Layers are applied in order by the rules of image-spec layer.md (a later file wins, whiteouts delete), so images of
``docker build`` with several layers work. An image may come from anyone: nothing is written outside the folder.
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from steps.oci.oci_layout import Blob, Image
from steps.runtime.errors import BadInput

DATA = "data"
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_CHUNK = 1024 * 1024


def unpack_data(image: Image, folder: Path) -> None:
    """Put the files under ``/data`` of ``image`` into the empty ``folder``; everything else is passed over.

    Raises:
        BadInput: when ``/data`` holds anything but regular files and folders, a name leads out of it, or a layer is
            no tar archive (plain or gzip).
    """
    for layer in image.layers:
        try:
            with tarfile.open(image.path(layer), mode="r|*") as tar:
                for member in tar:
                    _apply(tar, member, folder)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise BadInput(*_no_tar(layer, error)) from error


def _apply(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Apply one entry of a layer; ``folder`` is what ``/data`` will be."""
    path = PurePosixPath(member.name.lstrip("/"))
    if ".." in path.parts:
        raise BadInput(f"the image holds {member.name!r}, a name that leads elsewhere", "do not use this image")
    if path.parts in ((_OPAQUE,), (_WHITEOUT + DATA,)):
        _empty(folder)
    if path.parts[:1] != (DATA,):
        return
    target = folder.joinpath(*path.parts[1:])
    if path.name == _OPAQUE:
        _empty(target.parent)
    elif path.name.startswith(_WHITEOUT):
        _remove(target.with_name(path.name.removeprefix(_WHITEOUT)))
    elif member.isdir():
        _make_folder(target, folder)
    elif member.isreg() and not member.issparse() and target != folder:
        _remove(target)
        _make_folder(target.parent, folder)
        _write(tar, member, target)
    else:
        raise BadInput(
            f"the image holds /{path}, which is neither a regular file nor a folder",
            "build it with plain copies: FROM scratch, then COPY the files to /data/",
        )


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None  # It is so only for what is no regular file.
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)


def _make_folder(path: Path, root: Path) -> None:
    """Make ``path`` and what is between it and ``root`` folders, in the place of files of lower layers."""
    for step in [*reversed(path.parents), path]:
        if step.is_relative_to(root):
            if not step.is_dir():
                _remove(step)
            step.mkdir(exist_ok=True)


def _empty(folder: Path) -> None:
    for inner in folder.iterdir() if folder.is_dir() else ():
        _remove(inner)


def _remove(path: Path) -> None:
    """Delete what lower layers put at ``path``."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def _no_tar(layer: Blob, error: Exception) -> tuple[str, str]:
    if layer.media_type.endswith("zstd"):
        return f"layer {layer.digest} is compressed with zstd", "build the image with gzip layers"
    return f"layer {layer.digest} ({layer.media_type}) is no tar archive: {error}", "build the image again"
