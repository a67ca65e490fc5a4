"""An image with files under ``/data``, as KAITO's docs make one: ``FROM busybox; COPY dataset.parquet /data/``."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from steps.oci import oci_layout
from steps.runtime import files


def build_data_image(layout: Path, contents: dict[str, bytes]) -> None:
    """Put an image at ``layout`` that holds files of these names under ``/data``."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"data/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    with files.replacing_folder(layout) as folder:
        layer = oci_layout.write_blob(folder, "application/vnd.oci.image.layer.v1.tar", packed.getvalue())
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.digest]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci_layout.MANIFEST,
            "config": oci_layout.write_blob(folder, oci_layout.CONFIG, json.dumps(config).encode()).descriptor(),
            "layers": [layer.descriptor()],
        }
        oci_layout.write_index(
            folder, oci_layout.write_blob(folder, oci_layout.MANIFEST, json.dumps(manifest).encode()), "1"
        )
