"""Run the fetch step: ``python -m steps.fetch --help``."""

from steps.fetch.settings import Settings
from steps.fetch.step import fetch
from steps.runtime import entrypoint

entrypoint.main(Settings, fetch)
