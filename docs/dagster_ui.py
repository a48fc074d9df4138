"""Driving the Dagster UI of a project in headless Chromium: for the pictures of the README and the browser test.

It needs playwright and a Chromium; the package itself needs neither.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOST = "127.0.0.1"
GROUPS = ("source", "teacher", "student")
#: Without these a Chromium looks for the network at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Leave the width to the graph, and let it run from left to right.
LAYOUT = {
    "dagster-nav-collapsed": "true",
    "large-screen-nav-open": "false",
    "asset-graph-direction": '"horizontal"',
}


def find_chromium() -> str | None:
    """Path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Servers:
    """What `distill-dagster ui` has started.

    Attributes:
        dagster: Address of the Dagster UI.
        mlflow: Address of MLflow.
        log: What both have printed.
    """

    dagster: str
    mlflow: str
    log: Path

    def query(self, text: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a GraphQL query.

        Raises:
            RuntimeError: The query is refused.
        """
        body = json.dumps({"query": text, "variables": dict(variables or {})}).encode()
        request = urllib.request.Request(f"{self.dagster}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer = json.load(reply)
        if answer.get("errors"):
            raise RuntimeError(answer["errors"])
        return answer["data"]

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Asset nodes by key: group, staleness, latest materialization with its metadata entries."""
        data = self.query(
            """{ assetNodes { assetKey { path } groupName staleStatus dataVersion
                 assetMaterializations(limit: 1) { runId metadataEntries { label
                   ... on MarkdownMetadataEntry { mdStr } ... on UrlMetadataEntry { url }
                   ... on PathMetadataEntry { path } } } } }"""
        )
        return {"/".join(node["assetKey"]["path"]): node for node in data["assetNodes"]}

    def newest_run(self) -> dict[str, Any] | None:
        """Id, status and, where steps failed, their errors, of the newest run."""
        data = self.query(
            """{ runsOrError(limit: 1) { ... on Runs { results { runId status
                 eventConnection(limit: 1000) { events { __typename
                   ... on ExecutionStepFailureEvent { stepKey failureMetadata { description } error { message } }
                 } } } } } }"""
        )
        found = data["runsOrError"]["results"]
        if not found:
            return None
        events = found[0].pop("eventConnection")["events"]
        return {**found[0], "errors": [event for event in events if event["__typename"] == "ExecutionStepFailureEvent"]}

    def wait_for_run(self, seconds: float) -> dict[str, Any]:
        """The newest run, once it has ended well.

        Raises:
            RuntimeError: It failed; the message holds its errors.
            TimeoutError: It has not ended in time.
        """
        deadline = time.monotonic() + seconds
        run: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            run = self.newest_run()
            if run is not None and run["status"] == "SUCCESS":
                return run
            if run is not None and run["status"] in ("FAILURE", "CANCELED"):
                raise RuntimeError(f"run {run['runId']} has ended with {run['status']}: {run['errors']}")
            time.sleep(1)
        raise TimeoutError(f"after {seconds:.0f} s the run is {run['status'] if run else 'not there'}; see {self.log}")


@contextmanager
def servers(
    project: Path, log: Path, environment: Mapping[str, str] | None = None, seconds: float = 300
) -> Iterator[Servers]:
    """`distill-dagster ui` for a project folder, on free ports; ended with the block.

    Args:
        project: Folder that holds `assets_config`, or where the `DISTILL_` variables say otherwise.
        log: File for what the servers print.
        environment: Variables beside this process's own.
        seconds: How long they may take to answer.

    Raises:
        RuntimeError: They have not answered in time, or have ended.
    """
    port, mlflow_port = free_port(), free_port()
    found = Servers(f"http://{HOST}:{port}", f"http://{HOST}:{mlflow_port}", log)
    command = [sys.executable, "-m", "distill_dagster.cli", "ui", "--port", str(port), "--mlflow-port"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, str(mlflow_port)],
            cwd=project,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for(process, (f"{found.dagster}/server_info", f"{found.mlflow}/health"), seconds, log)
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], addresses: Sequence[str], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    waiting = list(addresses)
    while waiting:
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
            raise RuntimeError(f"no answer from {waiting[0]}:\n{tail}")
        try:
            with urllib.request.urlopen(waiting[0], timeout=5):
                waiting.pop(0)
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)


@contextmanager
def browser_page(chromium: str, width: int = 2600, height: int = 2000) -> Iterator[Page]:
    """A page of a fresh headless Chromium, with the UI's side panels folded away."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            store = "".join(f"localStorage.setItem({json.dumps(k)}, {json.dumps(v)});" for k, v in LAYOUT.items())
            page.add_init_script(f"if (location.protocol.startsWith('http')) {{ {store} }}")
            page.set_default_timeout(60_000)
            yield page
        finally:
            browser.close()


def open_graph(page: Page, ui: Servers, pipeline: str, names: Iterable[str]) -> None:
    """Open the asset graph of one pipeline with all its groups unfolded, and wait for its nodes."""
    selection = quote(f'key:"{pipeline}/*"', safe="*")
    unfolded = quote(",".join(f"global@global:{name}" for name in (pipeline, *(f"{pipeline}/{g}" for g in GROUPS))))
    page.goto(f"{ui.dagster}/asset-groups~{selection}/?expanded={unfolded}")
    for name in names:
        node(page, name).wait_for()


def node(page: Page, name: str) -> Any:
    """The box of one artifact in the asset graph."""
    return page.locator("foreignObject > div").filter(has=page.get_by_text(name, exact=True)).last


def open_asset(page: Page, ui: Servers, key: str) -> None:
    """Open an asset's page, and wait for the metadata of its latest materialization."""
    page.goto(f"{ui.dagster}/assets/{key}")
    page.get_by_text("data_version", exact=True).first.wait_for()


def open_markdown(page: Page, label: str) -> Any:
    """Open a long metadata entry of an asset's page, and return the dialog that shows it."""
    row = page.locator("tr", has=page.get_by_text(label, exact=True)).first
    row.get_by_text("[Show Markdown]").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Close").wait_for()
    return dialog


def close_dialog(page: Page) -> None:
    """Close the dialog that is open."""
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_role("dialog").wait_for(state="detached")


def graph_area(page: Page, margin: int = 24) -> Any:
    """The part of the page that the graph's boxes take, for a screenshot, once they have had time to take colours."""
    page.wait_for_timeout(8000)
    boxes = [box for found in page.locator("foreignObject").all() if (box := found.bounding_box())]
    left, top = (min(box[side] for box in boxes) - margin for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes) + margin
    bottom = max(box["y"] + box["height"] for box in boxes) + margin
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}
