"""Minimal work with Hera: import it, build the Workflow of a document, and convert it back."""

import json
import sys

from hera.workflows import Workflow

document = json.load(sys.stdin)
if Workflow.from_dict(document).to_dict() != document:
    sys.exit("Hera returned a different document")
