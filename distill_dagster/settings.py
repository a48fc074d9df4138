"""Where things lie: config, store and state, each from one environment variable with a project-local default."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Folders of one project.

    Attributes:
        config: YAML files (`DISTILL_ASSETS_CONFIG`, default `./assets_config`).
        store: Root of the artifact store, a folder or an fsspec URL (`DISTILL_STORE`, default `./.distill/store`).
        state: Journal, leases, work folders, Dagster home, MLflow (`DISTILL_STATE`, default `./.distill/state`).
            `DISTILL_JOURNAL` puts the journal into PostgreSQL instead (teachers/stores.py reads it, and shows it
            nowhere).
        namespace: Client, matter or study (`DISTILL_NAMESPACE`, default `default`).
        prefix: Optional key prefix in Dagster and folder in the store (`DISTILL_PREFIX`).
    """

    config: Path
    store: str
    state: Path
    namespace: str = "default"
    prefix: str = ""

    @classmethod
    def from_environment(cls, config: Path | str | None = None) -> Settings:
        """Settings from the environment; `config` wins over its variable. An empty variable is as if unset."""
        state = os.environ.get("DISTILL_STATE") or ".distill/state"
        config = config or os.environ.get("DISTILL_ASSETS_CONFIG") or "assets_config"
        return cls(
            config=Path(config).expanduser().absolute(),
            store=os.environ.get("DISTILL_STORE") or str(Path(".distill/store").absolute()),
            state=Path(state).expanduser().absolute(),
            namespace=os.environ.get("DISTILL_NAMESPACE") or "default",
            prefix=os.environ.get("DISTILL_PREFIX", ""),
        )

    @staticmethod
    def root_of(path: Path | str) -> str:
        """The variable of the root below which a path lies: DISTILL_STORE or DISTILL_STATE; empty for any other."""
        here = Settings.from_environment()
        roots = {"DISTILL_STORE": Path(here.store).absolute(), "DISTILL_STATE": here.state}
        around = [name for name, root in roots.items() if Path(path).absolute().is_relative_to(root)]
        return max(around, key=lambda name: len(roots[name].parts), default="")
