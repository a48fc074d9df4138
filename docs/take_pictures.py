"""Takes the pictures of the README from a real run: the graph, the report's metadata, the report as a page.

`make demo` first; then `make images`. The project is that of the current folder, or of the `DISTILL_` variables. Needs
a Chromium (Debian: the package `chromium`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from dagster_ui import browser_page, find_chromium, graph_area, open_asset, open_graph, servers

from distill_dagster import Project
from distill_dagster.lineage.engine import head_version

TARGET = Path(__file__).resolve().parent / "images"


def report_of(project: Project, pipeline: str) -> Path:
    """The newest report page of a pipeline; ends the program where there is none."""
    found = head_version(project.store, (pipeline, "eval_report")) if pipeline in project.pipelines else None
    if found is None:
        sys.exit(f"{pipeline}/eval_report was never materialized: run `make demo DOMAIN={pipeline}` first.")
    version, run = found
    return version.place / "runs" / run / "report.html"


def take(pipeline: str, target: Path, chromium: str) -> list[Path]:
    """The three pictures of one pipeline; returns their paths."""
    project = Project()
    report = report_of(project, pipeline)
    names = [artifact for owner, artifact in (n.key for n in project.needed(pipeline)) if owner == pipeline]
    target.mkdir(parents=True, exist_ok=True)
    graph, asset, page_picture = (target / name for name in ("graph.png", "asset.png", "report.png"))
    with browser_page(chromium, 1000, 1300) as page:
        page.goto(report.resolve().as_uri())
        page.screenshot(path=page_picture)
    with tempfile.TemporaryDirectory() as folder, servers(Path.cwd(), Path(folder) / "ui.log") as ui:
        with browser_page(chromium, 2000, 1600) as page:
            open_graph(page, ui, pipeline, names)
            page.screenshot(path=graph, clip=graph_area(page))
        with browser_page(chromium, 1500, 1000) as page:
            open_asset(page, ui, f"{pipeline}/eval_report")
            page.wait_for_timeout(2000)
            page.screenshot(path=asset)
    return [graph, asset, page_picture]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pipeline", default="finance")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        sys.exit("no Chromium on this machine; install the package chromium.")
    for path in take(arguments.pipeline, arguments.target, chromium):
        print(f"{path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
