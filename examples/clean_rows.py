"""Mask mail addresses in chat rows and remove duplicate rows: the custom step of own_cleaning_step.py.

    python clean_rows.py SOURCE TARGET

The script does not use argotune: a custom step can run any program in any image.
"""

import hashlib
import os
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")

source, target = map(Path, sys.argv[1:])
outputs = Path(os.environ["ARGOTUNE_OUTPUTS"])
target.mkdir(parents=True, exist_ok=True)
outputs.mkdir(parents=True, exist_ok=True)
content = hashlib.sha256()
for name in ("train.parquet", "eval.parquet"):
    table = pq.read_table(source / name)
    rows = {}
    for messages in table.column("messages").to_pylist():
        masked = [message | {"content": MAIL.sub("[mail]", message["content"])} for message in messages]
        rows.setdefault(str(masked), masked)
    pq.write_table(pa.table({"messages": list(rows.values())}, table.schema), target / name)
    content.update("".join(rows).encode())
    print(f"{name}: {table.num_rows} rows, {len(rows)} kept", flush=True)
# Later steps reuse their outputs if this digest is unchanged.
(outputs / "data-digest").write_text(f"sha256:{content.hexdigest()}")
