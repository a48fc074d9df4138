"""Model folders, as training names them; the code lies a floor below because teachers load folders too."""

from distill_dagster.models.folder import (
    check,
    context_length,
    digest,
    fetch,
    load_model,
    load_tokenizer,
    parameters,
    save,
)

__all__ = ["check", "context_length", "digest", "fetch", "load_model", "load_tokenizer", "parameters", "save"]
