"""Print constraints.txt: the installed version of everything the project and its dev extra depend on.

Run by `make constraints`, in an environment whose tests pass. Local version labels (`+cpu`) are dropped, so that
other platforms resolve the same pins.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

HEADER = """\
# What was tested together: exact versions of the whole dependency closure, dev tools included.
# Used by `make venv`, .ci/run and docker/Dockerfile as `pip install -c constraints.txt -e .[dev]`. Not a lock for users
# of the library: pyproject.toml has lower bounds only. A pin installs nothing by itself.
# Rewritten by `make constraints`.
"""


def pins(name: str) -> dict[str, str]:
    """Distribution names with versions that `name` reaches on this Python and platform."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(name)]
    while queue:
        wanted = queue.pop()
        key = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if (key, frozenset(wanted.extras)) in seen:
            continue
        seen.add((key, frozenset(wanted.extras)))
        try:
            dist = distribution(key)
        except PackageNotFoundError:
            continue
        found[key] = dist.version.split("+")[0]
        for line in dist.requires or []:
            needed = Requirement(line)
            extras = ("", *wanted.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append(needed)
    return found


if __name__ == "__main__":
    closure = pins("distill-dagster[dev]")
    del closure["distill-dagster"]
    sys.stdout.write(HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(closure.items())))
