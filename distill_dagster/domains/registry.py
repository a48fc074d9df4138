"""Domain plugins, found through the entry-point group. The built-in domains come the same way as a stranger's.

A plugin that cannot be loaded takes nothing else down: it is listed with its reason, and the others load.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata

from distill_dagster.config.registry import nearest
from distill_dagster.config.strict import LONGEST_NAME, OWNER
from distill_dagster.domains.base import ENTRY_POINT_GROUP, Domain
from distill_dagster.errors import PluginError

#: Names of domains or of distributions, separated by commas, that are not loaded.
DISABLE_VARIABLE = "DISTILL_DISABLE_PLUGINS"
PLUGINS = "`distill-dagster domains` lists them; a plugin of yours must be installed in this environment."

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Failure:
    """A plugin that is installed and cannot be used."""

    name: str
    distribution: str
    error: str

    def __str__(self) -> str:
        return f"domain {self.name!r} of {self.distribution}: {self.error}"


@dataclass(frozen=True)
class Domains:
    """What `discover` found.

    Attributes:
        found: Domains by name.
        origins: Distribution and version that each came from.
        failures: Plugins that could not be loaded.
        disabled: Names left out because the environment says so.
    """

    found: Mapping[str, Domain] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    disabled: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Domain]:
        return iter(self.found.values())

    def why_not(self, name: str) -> tuple[str, str]:
        """Reason and next step for a name that is not among the found ones."""
        for failure in self.failures:
            if failure.name == name:
                return f"{failure} cannot be used.", "Mend, update or uninstall the plugin."
        if name in self.disabled:
            return f"domain {name!r} is switched off by {DISABLE_VARIABLE}.", "Take it out of that variable."
        return f"unknown domain {name!r}.", f"{nearest(name, self.found)} {PLUGINS}"

    def get(self, name: str) -> Domain:
        """The domain of that name.

        Raises:
            PluginError: Unknown, disabled, claimed twice or broken; says which, and names the nearest known one.
        """
        if name in self.found:
            return self.found[name]
        raise PluginError(f"domain {name}", *self.why_not(name))


def discover() -> Domains:
    """Load every domain plugin that is installed and not disabled. Raises nothing that a plugin does wrong."""
    left_out = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")} - {""}
    claims: dict[str, dict[tuple[str, str], metadata.EntryPoint]] = {}
    disabled: set[str] = set()
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        origin = _origin(point)
        if point.name in left_out or origin.rpartition(" ")[0] in left_out:
            disabled.add(point.name)
            continue
        claims.setdefault(point.name, {})[origin, point.value] = point
    found: dict[str, Domain] = {}
    origins: dict[str, str] = {}
    failures: list[Failure] = []
    for name, points in sorted(claims.items()):
        owners = " and ".join(sorted(f"{origin} ({value})" for origin, value in points))
        if len(points) > 1:
            reason = f"the name is claimed twice, by {owners}; uninstall one, or name one in {DISABLE_VARIABLE}"
            failures.append(Failure(name, " and ".join(sorted({origin for origin, _ in points})), reason))
            continue
        ((origin, _), point), *_ = points.items()
        try:
            domain = point.load()()
            fault = _fault(name, domain)
        except (Exception, SystemExit) as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            failures.append(Failure(name, origin, fault))
        else:
            found[name], origins[name] = domain, origin
    return Domains(found, origins, tuple(failures), tuple(sorted(disabled - set(found))))


def _origin(point: metadata.EntryPoint) -> str:
    """Distribution and version, `acme-law 1.2`."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unnamed distribution"


def _fault(name: str, domain: object) -> str:
    """What is wrong with what a plugin returned; empty where nothing is."""
    if not isinstance(domain, Domain):
        return f"the entry point returned {type(domain).__name__}, not a Domain"
    if not _NAME.fullmatch(name):
        return f"the name {name!r} does not match [a-z][a-z0-9_]*"
    if len(name) > LONGEST_NAME:
        return f"the name {name!r} has {len(name)} characters, and at most {LONGEST_NAME} are allowed"
    for owner in domain.owners:
        if not re.fullmatch(OWNER, owner):
            return f"the owner {owner!r} is neither an e-mail address nor a team, as in team:NAME"
    if domain.name != name:
        return f"the entry point is named {name!r} and its Domain {domain.name!r}; they must agree"
    names = [task.name for task in domain.tasks]
    for task in domain.tasks:
        if not _NAME.fullmatch(task.name):
            return f"the task name {task.name!r} does not match [a-z][a-z0-9_]*"
        if names.count(task.name) > 1:
            return f"the task {task.name!r} is listed twice"
        if task.kind == "label" and len(set(task.labels)) < max(2, len(task.labels)):
            return f"the label task {task.name!r} needs at least two labels, each listed once"
    for template in domain.templates:
        if template.task not in names:
            return f"a template is for the task {template.task!r}, which the domain does not have"
    return ""
