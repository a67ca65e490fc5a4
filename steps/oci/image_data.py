"""Extraction of files of an image below some of its directories, such as ``/data`` of adapter and dataset images.

Layers are applied in order as in image-spec layer.md (later files win, whiteouts delete), so images built by
``docker build`` with several layers work. Images are untrusted: nothing is written outside the target directory.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from steps.oci.oci_layout import Blob, Image
from steps.runtime import files
from steps.runtime.errors import BadInput
from steps.runtime.unpacked_size import MAX_RATIO, max_unpacked_bytes

DATA = "data"
MAX_DEPTH = 100
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
"""Prefix of the metadata of AUFS, which is not part of the image."""
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Selection:
    """The files of an image to extract."""

    roots: Mapping[tuple[str, ...], Path]
    """Destinations of the content of directories of the image, by the parts of their paths."""
    patterns: Sequence[str] = ()
    """Patterns of file names; empty: every file, and anything that is neither a file nor a directory is an error."""
    fix: str = "build it FROM scratch and COPY the files to /data/"
    """How to build an image without such entries."""

    def includes(self, name: str) -> bool:
        """Return True if a file of this name is extracted."""
        return not self.patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns)


def unpack_data(image: Image, folder: Path) -> None:
    """Extract the files under ``/data`` of ``image``, which is all that KAITO uses of it, into the empty ``folder``.

    Raises:
        BadInput: as ``unpack``.
    """
    unpack(image, image.layers, Selection({(DATA,): folder}))


def unpack(image: Image, layers: Sequence[Blob], selection: Selection) -> None:
    """Extract the selected files of layers of ``image`` into empty directories and skip all others.

    Raises:
        BadInput: a root contains anything but regular files and directories, a path leads out of it, or a layer is
            not a tar archive (plain or gzip) or unpacks to more than ``MAX_RATIO`` times its size.
    """
    for layer in layers:
        written: set[Path] = set()
        try:
            with _open_layer(image.path(layer)) as tar:
                for member in tar:
                    _apply_entry(tar, member, selection, written)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _not_a_tar(layer, error) from error


@contextlib.contextmanager
def _open_layer(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a layer as a stream: it ends with an error when it unpacks to too many bytes."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not is_gzip:
            with tarfile.open(fileobj=file, mode="r|") as tar:
                yield tar
            return
        limit = max_unpacked_bytes(path.stat().st_size)
        with _LimitedGzip(file, limit) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
            yield tar


class _LimitedGzip(gzip.GzipFile):
    """Gzip file that raises BadInput after ``limit`` unpacked bytes."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._limit = self._remaining = limit

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self._remaining -= len(content)
        if self._remaining < 0:
            raise BadInput(
                f"a layer of the image unpacks to more than {self._limit} bytes, over {MAX_RATIO} times its size",
                "use another image, or build it with layers that are not compressed",
            )
        return content


def _apply_entry(tar: tarfile.TarFile, member: tarfile.TarInfo, selection: Selection, written: set[Path]) -> None:
    """Apply one entry of a layer to the root that contains it.

    ``written`` are the paths that this layer has written: its whiteouts apply to lower layers only.
    """
    path = PurePosixPath(member.name.lstrip("/"))
    if ".." in path.parts:
        raise BadInput(f"the image contains {member.name!r}, which leads out of the directory", "use another image")
    for root, folder in selection.roots.items():
        if _hides_root(path, root):
            _hide(folder, written)
        if path.parts[: len(root)] == root:
            _apply_below_root(tar, member, folder.joinpath(*path.parts[len(root) :]), folder, selection, written)
            return


def _hides_root(path: PurePosixPath, root: tuple[str, ...]) -> bool:
    """Return True for the whiteout of a root or of a directory above it."""
    parent = path.parts[:-1]
    if not path.parts or parent != root[: len(parent)] or len(parent) >= len(root):
        return False
    return path.name in (_OPAQUE, _WHITEOUT + root[len(parent)])


def _apply_below_root(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    target: Path,
    root: Path,
    selection: Selection,
    written: set[Path],
) -> None:
    path = PurePosixPath(member.name.lstrip("/"))
    _check_name(member.name, path)
    if path.name == _OPAQUE:
        _hide(target.parent, written)
    elif path.name.startswith(_AUFS):
        return
    elif path.name.startswith(_WHITEOUT):
        _hide_one(target.parent / path.name.removeprefix(_WHITEOUT), written)
    elif selection.patterns and (member.isdir() or not selection.includes(path.name)):
        return
    elif member.isdir():
        _create_folder(target, root)
        written.update((target, *target.parents))
    elif member.isreg() and not member.issparse() and target != root:
        _remove(target)
        _create_folder(target.parent, root)
        _write(tar, member, target)
        written.update((target, *target.parents))
    else:
        raise BadInput(f"the image contains /{path}, which is neither a regular file nor a directory", selection.fix)


def _check_name(name: str, path: PurePosixPath) -> None:
    """Reject names that no file can have, and whiteouts of anything but a sibling."""
    hidden = path.name.removeprefix(_WHITEOUT)
    reserved = any(part.startswith(_WHITEOUT) for part in path.parts[:-1])
    if reserved or (path.name.startswith(_WHITEOUT) and hidden in ("", ".", "..")):
        raise BadInput(f"the image contains {name[:200]!r}, which is not a valid whiteout", "use another image")
    if len(path.parts) > MAX_DEPTH or not files.is_safe_path(path):
        raise BadInput(f"the image contains {name[:200]!r}, which is not a valid file name", "use another image")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None  # None only for entries that are not regular files.
    try:
        with target.open("wb") as file:
            shutil.copyfileobj(content, file, _CHUNK)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise BadInput(f"the image contains {member.name[:200]!r}, which is too long", "use another image") from error


def _create_folder(path: Path, root: Path) -> None:
    """Create ``path`` and its parents below ``root``, replacing files of lower layers."""
    for part in [*reversed(path.parents), path]:
        if part.is_relative_to(root):
            if not part.is_dir():
                _remove(part)
            part.mkdir(exist_ok=True)


def _hide(folder: Path, written: set[Path]) -> None:
    """Delete what lower layers have in ``folder``."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        _hide_one(path, written)


def _hide_one(path: Path, written: set[Path]) -> None:
    """Delete the file or directory of lower layers at ``path``."""
    if path not in written:
        _remove(path)
    elif path.is_dir():
        _hide(path, written)


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
