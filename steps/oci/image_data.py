"""Extraction of the files under ``/data`` of an image, which is all that KAITO uses of adapter and dataset images.

Layers are applied in order as in image-spec layer.md (later files win, whiteouts delete), so images built by
``docker build`` with several layers work. Images are untrusted: nothing is written outside the target directory.
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
    """Extract the files under ``/data`` of ``image`` into the empty ``folder`` and skip all others.

    Raises:
        BadInput: ``/data`` contains anything but regular files and directories, a path leads out of it, or a layer is
            not a tar archive (plain or gzip).
    """
    for layer in image.layers:
        try:
            with tarfile.open(image.path(layer), mode="r|*") as tar:
                for member in tar:
                    _apply_entry(tar, member, folder)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise _not_a_tar(layer, error) from error


def _apply_entry(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Apply one entry of a layer to ``folder``, which becomes ``/data``."""
    path = PurePosixPath(member.name.lstrip("/"))
    if ".." in path.parts:
        raise BadInput(f"the image contains {member.name!r}, which leads out of the directory", "use another image")
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
        _create_folder(target, folder)
    elif member.isreg() and not member.issparse() and target != folder:
        _remove(target)
        _create_folder(target.parent, folder)
        _write(tar, member, target)
    else:
        raise BadInput(
            f"the image contains /{path}, which is neither a regular file nor a directory",
            "build it FROM scratch and COPY the files to /data/",
        )


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None  # None only for entries that are not regular files.
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)


def _create_folder(path: Path, root: Path) -> None:
    """Create ``path`` and its parents below ``root``, replacing files of lower layers."""
    for part in [*reversed(path.parents), path]:
        if part.is_relative_to(root):
            if not part.is_dir():
                _remove(part)
            part.mkdir(exist_ok=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        _remove(path)


def _remove(path: Path) -> None:
    """Delete the file or directory of lower layers at ``path``."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def _not_a_tar(layer: Blob, error: Exception) -> BadInput:
    if layer.media_type.endswith("zstd"):
        return BadInput(f"layer {layer.digest} is compressed with zstd", "build the image with gzip layers")
    return BadInput(
        f"layer {layer.digest} ({layer.media_type}) is not a tar archive: {error}", "build the image again"
    )
