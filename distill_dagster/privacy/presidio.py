"""presidio-analyzer as a second detector: is it there, which model, and what makes it the one that it is.

Nothing is downloaded: a model is a folder or an installed package, or there is none. Nothing heavy is imported before
a detector is built, and one is built once a process.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_dagster.config import paths
from distill_dagster.config.detector import DetectorOptions
from distill_dagster.errors import ConfigError, DistillError

if TYPE_CHECKING:
    from distill_dagster.privacy.analyzer import Analyzer

#: The oldest release whose interface is used here.
OLDEST = (2, 2, 366)
INSTALL = "Install it: pip install 'distill-dagster[pii]'."
#: What decides what is found.
PACKAGES = ("presidio-analyzer", "phonenumbers", "spacy", "tldextract")

#: Relative path, size and time of each file of a model: what tells that none has changed since it was read.
Stamp = tuple[tuple[str, int, int], ...]


class DetectorError(DistillError):
    """The detector cannot be had, or cannot go on.

    Attributes:
        field: The option at fault; empty where it is none of them.
    """

    def __init__(self, field: str, reason: str, next_step: str = "") -> None:
        self.field = field
        super().__init__("detector presidio" + (f": {field}" if field else ""), reason, next_step)


def versions() -> dict[str, str]:
    """Versions of presidio and of what it finds with.

    Raises:
        DetectorError: One is not installed, or presidio is too old; names the extra.
    """
    try:
        for module in ("presidio_analyzer", "spacy"):
            if importlib.util.find_spec(module) is None:
                raise ImportError(f"there is no package {module}")
        found = {name: metadata.version(name) for name in PACKAGES}
    except (ImportError, ValueError) as error:
        reason = f"`detector: presidio` needs the package presidio-analyzer, which cannot be imported ({error})."
        raise DetectorError("", reason, INSTALL) from error
    if tuple(int(part) for part in found[PACKAGES[0]].split(".")[:3] if part.isdecimal()) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        reason = f"it needs presidio-analyzer {wanted} or newer, and this is {found[PACKAGES[0]]}."
        raise DetectorError("", reason, INSTALL)
    return found


def model_folder(options: DetectorOptions, folder: Path | None) -> Path | None:
    """Folder of the spaCy model; None where none is asked for. A relative path starts at `folder`.

    Raises:
        DetectorError: There is no such folder or package, or it holds no spaCy model.
    """
    if options.model is None:
        return None
    if paths.is_folder(options.model):
        try:
            found = paths.resolve(options.model, folder or Path(), "model")
        except ConfigError as error:
            raise DetectorError("model", error.reason, error.next_step) from error
        if not (found / "config.cfg").is_file():
            reason = f"{options.model!r} is no folder of a spaCy model: it holds no config.cfg."
            raise DetectorError("model", reason, "`nlp.to_disk(...)` writes one; a path is relative to the YAML file.")
        return found
    spec = importlib.util.find_spec(options.model) if options.model.isidentifier() else None
    if spec is None or spec.origin is None:
        reason = f"no package {options.model!r} is installed, and nothing is downloaded."
        hint = "Install the spaCy model's package, name its folder (`./...`), or leave `model` out for patterns alone."
        raise DetectorError("model", reason, hint)
    inside = sorted(path.parent for path in Path(spec.origin).parent.glob("*/config.cfg"))
    if len(inside) != 1:
        reason = f"the package {options.model!r} holds no spaCy model."
        raise DetectorError("model", reason, "Such a package holds one folder with a config.cfg.")
    return inside[0]


def identity(options: DetectorOptions, folder: Path | None) -> dict[str, Any]:
    """What decides what is found: the options, versions, and a digest of the model's files.

    Raises:
        DetectorError: As `versions` and `model_folder`.
    """
    installed, model = versions(), model_folder(options, folder)
    return {
        "name": options.name,
        "language": options.language,
        "entities": None if options.entities is None else sorted(set(options.entities)),
        "threshold": options.threshold,
        "model": None if model is None else _digest(model, _stamp(model)),
        "versions": installed,
    }


def detector(options: DetectorOptions, folder: Path | None = None) -> Analyzer:
    """The detector; a second call with the same options and model gives the same one.

    Raises:
        DetectorError: As `identity`; or presidio cannot be built so, or does not know an entity.
    """
    versions()
    model = model_folder(options, folder)
    entities = None if options.entities is None else tuple(sorted(set(options.entities)))
    return _built(options.language, entities, options.threshold, model, None if model is None else _stamp(model))


@lru_cache(maxsize=4)
def _built(
    language: str, entities: tuple[str, ...] | None, threshold: float, model: Path | None, stamp: Stamp | None
) -> Analyzer:
    try:
        from distill_dagster.privacy.analyzer import Analyzer

        return Analyzer(language, entities, threshold, model)
    except ImportError as error:
        reason = f"`detector: presidio` needs a package that cannot be imported ({error})."
        raise DetectorError("", reason, INSTALL) from error


def _stamp(model: Path) -> Stamp:
    files = sorted(path for path in model.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    said = ((path, path.stat()) for path in files)
    return tuple((path.relative_to(model).as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in said)


@lru_cache(maxsize=16)
def _digest(model: Path, stamp: Stamp) -> str:
    """SHA-256 over the sorted (name, file SHA-256) of a model's files, 64 hex digits."""
    whole = hashlib.sha256()
    for name, _, _ in stamp:
        with (model / name).open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def short(identity: Mapping[str, Any]) -> str:
    """A detector in a word or two, for a version: its name and 8 hex digits of its identity."""
    from distill_dagster.records.identity import digest

    return f"{identity['name']}-{digest(dict(identity))[:8]}"
