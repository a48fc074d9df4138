"""The Dagster code location of a project: `dagster dev -m distill_dagster.definitions`.

The YAML files are found through `DISTILL_ASSETS_CONFIG`, by default `./assets_config`.
"""

from distill_dagster.assets.build import build_definitions

defs = build_definitions()
