"""Run the release step: ``python -m steps.release --help``."""

from steps.release.settings import Settings
from steps.release.step import release
from steps.runtime import entrypoint

entrypoint.main(Settings, release)
