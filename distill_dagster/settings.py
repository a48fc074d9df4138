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
        """Settings from the environment; `config` wins over its variable."""
        state = Path(os.environ.get("DISTILL_STATE", ".distill/state")).expanduser().absolute()
        return cls(
            config=Path(config or os.environ.get("DISTILL_ASSETS_CONFIG", "assets_config")).expanduser().absolute(),
            store=os.environ.get("DISTILL_STORE", str(Path(".distill/store").absolute())),
            state=state,
            namespace=os.environ.get("DISTILL_NAMESPACE", "default"),
            prefix=os.environ.get("DISTILL_PREFIX", ""),
        )
