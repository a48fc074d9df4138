"""Extra nodes that a domain plugin contributes, imported only when definitions are built."""

from __future__ import annotations

import importlib
from typing import Any

from distill_dagster.errors import PluginError
from distill_dagster.stages.context import SourceContext
from distill_dagster.stages.project import Project


def nodes(project: Project, source: SourceContext) -> Any:
    """What the function `nodes(project, source)` that a domain names returns for a source; None where it names none.

    Raises:
        PluginError: It cannot be imported or called, or returns nothing; names the domain and its distribution.
    """
    text = source.domain.nodes
    if text is None:
        return None
    module, _, name = text.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise fault(project, source, f"cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(function):
        raise fault(project, source, f"is no function but {type(function).__name__}")
    try:
        found = function(project, source)
    except (Exception, SystemExit) as error:
        raise fault(project, source, f"raised {type(error).__name__}: {error}") from error
    if found is None:
        raise fault(project, source, "returned None")
    return found


def fault(project: Project, source: SourceContext, reason: str) -> PluginError:
    """What is wrong with the nodes of a domain, as in "cannot be imported (...)"."""
    domain = source.domain
    origin = project.domains.origins.get(domain.name, "an unnamed distribution")
    place = f"domain {domain.name!r} of {origin}"
    next_step = "Mend, update or uninstall the plugin; the rest of the project is there without them."
    return PluginError(place, f"its nodes {domain.nodes!r} for source {source.key!r}: {reason}.", next_step)
