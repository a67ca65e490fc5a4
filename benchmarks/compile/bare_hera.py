"""The least that Hera needs for a DAG: import it, make the Workflow of a document, and give the document back."""

import json
import sys

from hera.workflows import Workflow

document = json.load(sys.stdin)
if Workflow.from_dict(document).to_dict() != document:
    sys.exit("Hera gives another document back")
