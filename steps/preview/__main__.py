"""Run the preview step: ``python -m steps.preview --help``."""

from steps.preview.settings import Settings
from steps.preview.step import preview
from steps.runtime import entrypoint

entrypoint.main(Settings, preview)
