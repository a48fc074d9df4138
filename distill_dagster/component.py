"""A Dagster Component around `build_definitions`, for projects that use `dg`."""

from pathlib import Path

import dagster as dg

from distill_dagster.assets.build import build_definitions


class DistillationComponent(dg.Component, dg.Model, dg.Resolvable):
    """Distillation pipelines of one configuration folder.

    Attributes:
        config_dir: Folder of the YAML files, relative to the component's own folder.
        prefix: Key prefix of all assets.
    """

    config_dir: str = "assets_config"
    prefix: str = ""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the folder's sources and pipelines."""
        return build_definitions(Path(context.path) / self.config_dir, self.prefix)
