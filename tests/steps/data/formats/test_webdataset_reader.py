"""Webdataset archives: members of one name are one row."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import format_files
import pytest

from steps.runtime.errors import BadInput


def archive(members: dict[str, bytes | str], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")]
)
def test_members_of_one_name_are_a_row(tmp_path: Path, name: str, mode: str) -> None:
    members = {
        "a/1.json": '{"prompt": "x"}',
        "a/1.completion": "y",
        "a/1.jpg": b"\xff\xd8",
        "a/2.txt": "z",
        "b/2.txt": "other",
        "b/.hidden.json": "no",
        "_readme": "no",
    }
    rows = format_files.rows_of(tmp_path, name, archive(members, mode))
    assert rows == [
        {"prompt": "x", "completion": "y", "text": None},
        {"prompt": None, "completion": None, "text": "z"},
        {"prompt": None, "completion": None, "text": "other"},
    ]


def test_all_errors_with_their_members(tmp_path: Path) -> None:
    members = {"1.json": "[]", "2.txt": b"\xff", "3.json": '{"text": 1}', "4.json": '{"text": "a"}'}
    with pytest.raises(BadInput) as raised:
        format_files.convert(tmp_path, "a.tar", archive(members))
    assert raised.value.message.split("\n  ") == [
        "a.tar: 1.json: a row is a list, not an object",
        "a.tar: 2.txt: byte 0xff is not UTF-8",
        "a.tar: /4: `text` is text, but a number in other rows",
    ]


@pytest.mark.parametrize("size", [100, 1536, 4000, 5000])
def test_truncated_archive(tmp_path: Path, size: int) -> None:
    content = archive({f"{n}.txt": "x" * 600 for n in range(20)})
    with pytest.raises(BadInput, match=r"a\.tar: (the file is damaged|not a tar archive)"):
        format_files.convert(tmp_path, "a.tar", content[:size])


def test_damaged_header(tmp_path: Path) -> None:
    content = bytearray(archive({f"{n}.txt": "x" * 600 for n in range(20)}))
    content[1536 * 3 + 10] ^= 1
    with pytest.raises(BadInput, match=r"a\.tar: the file is damaged \(bad checksum at byte 4608\)"):
        format_files.convert(tmp_path, "a.tar", bytes(content))
