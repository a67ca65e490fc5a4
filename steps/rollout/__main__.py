"""Run the rollout step: ``python -m steps.rollout --help``."""

from steps.rollout.settings import Settings
from steps.rollout.step import rollout
from steps.runtime import entrypoint

entrypoint.main(Settings, rollout)
