"""What can be known of docker/ without a container engine: it parses, listens on loopback, and Dagster accepts it."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parent.parent
DOCKER = REPO / "docker"


def read(name: str) -> dict:
    return yaml.safe_load((REPO / name).read_text())


@pytest.fixture(scope="module")
def services() -> dict:
    return read("docker/compose.yaml")["services"]


def test_ports_are_published_on_loopback_only(services: dict) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(isinstance(port, str) and port.startswith("127.0.0.1:") for port in ports), ports
    assert not [name for name, service in services.items() if service.get("network_mode")]


def test_one_daemon_and_no_engine_socket(services: dict) -> None:
    daemons = [service for service in services.values() if "dagster-daemon" in service.get("command", [])]
    assert [service["deploy"]["replicas"] for service in daemons] == [1]
    assert "docker.sock" not in (DOCKER / "compose.yaml").read_text()


def test_every_volume_and_file_that_is_mounted_exists(services: dict) -> None:
    named = set(read("docker/compose.yaml")["volumes"])
    for service in services.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in named, mount


def test_no_telemetry_and_no_password(services: dict) -> None:
    for name, service in services.items():
        environment = service.get("environment", {})
        if name != "postgres":
            assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
            assert environment["DO_NOT_TRACK"] == "1"
        assert environment["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert read("docker/dagster.yaml")["telemetry"] == {"enabled": False}


def test_dagster_accepts_the_instance(tmp_path: Path) -> None:
    config = pytest.importorskip("dagster._core.instance.config")
    shutil.copy(DOCKER / "dagster.yaml", tmp_path)
    accepted, _ = config.dagster_instance_config(str(tmp_path))
    assert accepted["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert accepted["concurrency"]["pools"]["granularity"] == "run"
    assert accepted["storage"]["postgres"]["postgres_db"]["password"] == {"env": "POSTGRES_PASSWORD"}


def test_workspaces_name_the_definitions() -> None:
    module = read("workspace.yaml")["load_from"][0]["python_module"]["module_name"]
    assert module == "distill_dagster.definitions"
    served = read("docker/workspace.yaml")["load_from"][0]["grpc_server"]
    assert served["host"] in read("docker/compose.yaml")["services"]
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert f'"--port", "{served["port"]}"' in dockerfile
    assert f'"--module-name", "{module}"' in dockerfile


def test_what_the_image_copies_exists() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+)$", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    sources = [source for line in copied for source in line.split()[:-1]]
    assert "constraints.txt" in sources
    assert not [source for source in sources if not (REPO / source).exists()]
