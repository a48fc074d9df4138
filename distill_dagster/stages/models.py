"""Model references in config, resolved: `domain:NAME`, `preset:NAME`, a folder, or a hub id with revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_dagster.config import paths
from distill_dagster.config.strict import COMMIT_HINT, is_commit
from distill_dagster.errors import ModelError
from distill_dagster.stages.context import SourceContext


@dataclass(frozen=True)
class ModelReference:
    """A resolved reference: `kind` is preset, folder or hub; `folder` is set for a local one."""

    text: str
    kind: str
    folder: Path | None = None
    preset: str | None = None
    revision: str | None = None

    def outside(self) -> Mapping[str, Any]:
        """What an action key needs to know: the digest of a folder's files, or the pinned revision."""
        if self.folder is None:
            return {"model": self.text, "revision": self.revision}
        from distill_dagster.models import folder

        return {"model": folder.digest(self.folder)}

    def sort(self) -> str:
        """causal, classifier or encoder (which has no head yet). Of a hub model its `config.json` is fetched; where
        that cannot be had, it counts as causal, and fetching the model says why."""
        from distill_dagster.models import classifier, folder
        from distill_dagster.training import presets

        if self.kind == "preset":
            return "encoder" if presets.is_encoder(self.preset or "") else "causal"
        if self.folder is not None:
            return classifier.kind(self.folder)
        return classifier.kind_of(folder.fetch_config(self.text, self.revision))

    def fetched(self) -> Path:
        """A checked local folder; fetches a hub model."""
        from distill_dagster.models import folder

        path = self.folder if self.folder is not None else folder.fetch(self.text, self.revision)
        folder.check(path)
        return path


def resolve(text: str, revision: str | None, source: SourceContext, base: Path, place: str) -> ModelReference:
    """What a model reference means.

    Raises:
        ModelError: The domain ships no such model, or a hub id comes without its commit.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "preset":
        return ModelReference(text, "preset", preset=rest)
    if scheme == "domain":
        if source.domain.models is None or not (Path(source.domain.models) / rest / "config.json").exists():
            raise ModelError(
                place,
                f"domain {source.domain.name!r} ships no model {rest!r}.",
                f"Make it with `make teacher DOMAIN={source.domain.name}`, or name another model.",
            )
        return ModelReference(text, "folder", folder=Path(source.domain.models) / rest)
    path = paths.resolve(text, base, place)
    if path.exists() or paths.is_folder(text):
        return ModelReference(text, "folder", folder=path)
    if revision is None:
        raise ModelError(
            place,
            f"{text!r} is no folder here, and as a hub id it needs `revision`.",
            "Add the commit to the YAML file.",
        )
    if not is_commit(revision):  # The action key holds the revision, and a branch can move under it.
        reason = f"hub model {text!r} needs its commit, and {revision!r} is none: a branch or a tag can move."
        raise ModelError(place, reason, COMMIT_HINT)
    return ModelReference(text, "hub", revision=revision)
