"""A Dagster Component around `merge_definitions`, for projects that use `dg`."""

from pathlib import Path

import dagster as dg

from distill_dagster.assets.build import merge_definitions


class DistillationComponent(dg.Component, dg.Model, dg.Resolvable):
    """Distillation pipelines of one configuration folder.

    Attributes:
        config_dir: Folder of the YAML files, relative to the component's own folder.
        prefix: Key prefix of all assets; `DISTILL_PREFIX` by default.
    """

    config_dir: str = "assets_config"
    prefix: str | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the folder's sources and pipelines; they name no executor for the rest of the project."""
        return merge_definitions(dg.Definitions(), Path(context.path) / self.config_dir, self.prefix)
