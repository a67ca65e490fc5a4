"""Files of a base model without training libraries, and images that hold them."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steps.oci import oci_layout, reference, registry
from steps.runtime import files

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}


def safetensors(size: int, fill: bytes = b"\0") -> bytes:
    """Return a file with one tensor of ``size`` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + fill * size


def model_files(size: int = 1000, **config: Any) -> dict[str, bytes]:
    """Return the files of a model with weights of ``size`` bytes."""
    return {
        "config.json": json.dumps(CONFIG | config).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"chat_template": "x"}',
        "model.safetensors": safetensors(size),
    }


def tar_layer(contents: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return the archive of files and symbolic links by their paths in the image."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return packed.getvalue()


def push_image(work: Path, name: str, layers: Sequence[bytes], titles: Sequence[str] = ()) -> str:
    """Push an image of layers, or an artifact of files with ``titles``; return its digest."""
    with files.replacing_folder(work / "layout") as folder:
        blobs = [oci_layout.write_blob(folder, "application/vnd.oci.image.layer.v1.tar", layer) for layer in layers]
        descriptors = [blob.descriptor() for blob in blobs]
        for descriptor, title in zip(descriptors, titles, strict=False):
            descriptor["annotations"] = {oci_layout.TITLE: title}
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci_layout.MANIFEST,
            "config": oci_layout.write_blob(folder, oci_layout.CONFIG, b"{}").descriptor(),
            "layers": descriptors,
        }
        blob = oci_layout.write_blob(folder, oci_layout.MANIFEST, json.dumps(manifest).encode())
        oci_layout.write_index(folder, blob, "1")
    return registry.push_image(work / "layout", reference.parse(name))


def push_folder(work: Path, name: str, folder: Path, root: str = "workspace/weights") -> str:
    """Push an image with the files of a directory below ``root``; return its digest."""
    contents = {f"{root}/{file.name}": file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
    return push_image(work, name, [tar_layer(contents)])
