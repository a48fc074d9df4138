"""`make ui`: Dagster's webserver and daemon, and MLflow, bound to loopback, with telemetry off."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import dagster as dg

from distill_dagster import console
from distill_dagster.assets.launch import dagster_home
from distill_dagster.errors import DistillError
from distill_dagster.resources.mlflow_tracking import local_uri
from distill_dagster.settings import Settings

HOST = "127.0.0.1"


def serve(settings: Settings, port: int, mlflow_port: int) -> None:
    """Run the three until one ends or the user stops them.

    Raises:
        DistillError: A port is taken.
    """
    for name, number in (("the Dagster UI", port), ("MLflow", mlflow_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex((HOST, number)) == 0:
                raise DistillError(f"port {number}", f"it is taken, {name} needs it.", "Choose another with --port.")
    dagster_home(settings.state)
    # Webserver and daemon would both make the tables of a fresh home, and one of them would fail.
    dg.DagsterInstance.get().dispose()
    own_mlflow = not os.environ["MLFLOW_TRACKING_URI"].startswith("http")
    environment = {
        **os.environ,
        "DISTILL_ASSETS_CONFIG": str(settings.config),
        "DISTILL_STORE": settings.store,
        "DISTILL_STATE": str(settings.state),
        "DISTILL_MLFLOW_UI": f"http://{HOST}:{mlflow_port}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    module = ["-m", "distill_dagster.definitions"]
    python = sys.executable
    commands = [
        [python, "-m", "dagster_webserver", "-h", HOST, "-p", str(port), *module],
        [python, "-m", "dagster._daemon", "run", *module],
    ]
    if own_mlflow:
        (settings.state / "mlflow").mkdir(parents=True, exist_ok=True)
        commands.append(
            [python, "-m", "mlflow", "server", "--host", HOST, "--port", str(mlflow_port)]
            + ["--backend-store-uri", local_uri(settings.state)]
            + ["--default-artifact-root", (settings.state / "mlflow" / "artifacts").as_uri(), "--workers", "1"]
        )
    processes = [subprocess.Popen(command, env=environment, start_new_session=True) for command in commands]
    console.out.print(
        f"Dagster: [bold]http://{HOST}:{port}[/]   MLflow: [bold]http://{HOST}:{mlflow_port}[/]   (Ctrl-C ends both)"
    )
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
