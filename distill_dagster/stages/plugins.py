"""Extra nodes that a domain plugin contributes, imported only when definitions are built."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from distill_dagster.errors import PluginError
from distill_dagster.stages.context import SourceContext


def nodes(source: SourceContext) -> Callable[..., Any] | None:
    """The function `nodes(project, source) -> dagster.Definitions` that a domain names, or None.

    Raises:
        PluginError: The name cannot be imported.
    """
    text = source.domain.nodes
    if text is None:
        return None
    module, _, function = text.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"domain {source.domain.name}", f"its nodes {text!r} cannot be imported ({error}).", "Mend the plugin."
        ) from error
