"""Rows of a hub data set, pinned by commit. No loading scripts; a card that says otherwise than the YAML stops it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from distill_dagster.config.models import DataFile
from distill_dagster.errors import SourceError


def label(datafile: DataFile) -> str:
    """`hub:owner/name/subset:split`, the name of the origin."""
    subset = f"/{datafile.subset}" if datafile.subset else ""
    return f"hub:{datafile.hub}{subset}:{datafile.split}"


def rows(datafile: DataFile) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """`(number, place, row)` of the split, class numbers replaced by their names; -1, a row without a class, is None.

    Raises:
        SourceError: The hub cannot be reached and the cache has nothing; the card's licence is not the declared one.
    """
    place = label(datafile)
    _check_licence(datafile, place)
    data = _load(datafile, place)
    features = data.features
    for number, row in enumerate(data, start=1):
        named = {
            column: (features[column].int2str(value) if value >= 0 else None)
            if isinstance(value, int) and hasattr(features[column], "int2str")
            else value
            for column, value in row.items()
        }
        yield number, f"{place}:row {number}", named


def _quiet() -> None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _check_licence(datafile: DataFile, place: str) -> None:
    """Fail closed unless the card at this very revision names the declared licence."""
    _quiet()
    try:
        from huggingface_hub import DatasetCard, hf_hub_download

        readme = hf_hub_download(str(datafile.hub), "README.md", repo_type="dataset", revision=str(datafile.revision))
        card = DatasetCard.load(readme).data.to_dict()
    except Exception as error:
        raise _unreachable(datafile, place, error) from error
    named = card.get("license")
    licences = [str(name).lower() for name in (named if isinstance(named, list) else [named] if named else [])]
    if datafile.licence.lower() not in licences:
        found = f"names {', '.join(licences)}" if licences else "names no licence"
        raise SourceError(
            place,
            f"the YAML file declares licence {datafile.licence!r}, the data set's card {found}.",
            "Read the card and the origin, and declare what holds; or keep a local copy with the licence you know.",
        )


def _load(datafile: DataFile, place: str) -> Any:
    try:
        import datasets

        data = datasets.load_dataset(
            str(datafile.hub), name=datafile.subset, revision=str(datafile.revision), split=str(datafile.split)
        )
    except Exception as error:
        raise _unreachable(datafile, place, error) from error
    if datafile.rows is not None and data.num_rows != datafile.rows:
        reason = f"{data.num_rows} rows, but the YAML file declares {datafile.rows}."
        raise SourceError(place, reason, "Is it the same release? If so, mend `rows`.")
    return data


def _unreachable(datafile: DataFile, place: str, error: Exception) -> SourceError:
    text = (str(error).strip().splitlines() or [""])[0][:300]
    if "script" in text.lower():
        step = (
            "Loading scripts are never run. Use the data set's parquet conversion (its commit on refs/convert/parquet)."
        )
    else:
        step = "Check id, revision, subset and split. Offline, fetch the file elsewhere and name it with `path`."
    return SourceError(place, f"cannot be read at revision {datafile.revision}: {type(error).__name__}: {text}", step)
