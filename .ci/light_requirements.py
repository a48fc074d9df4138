"""Print the project's and the dev extra's requirements without the heavy ones, for the other Python versions.

`make test-pythons` runs the fast tests that need no torch there: the heavy packages cost gigabytes and minutes on every
interpreter, and what they run is tested on the main one.
"""

import re
import tomllib
from pathlib import Path

HEAVY = {"torch", "transformers", "datasets", "mlflow", "tokenizers", "playwright", "pre-commit", "pyright", "ruff"}

if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        if re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0].lower() not in HEAVY:
            print(requirement)
