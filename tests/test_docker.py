"""What can be known of docker/ without a container engine: it parses, listens on loopback, and Dagster accepts it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

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


def stage(name: str) -> str:
    """Instructions of one stage of the Dockerfile, joined lines as one: the `build` stage, or the last one."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    build, last = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    return build if name == "build" else last


def clis() -> dict[str, Any]:
    """The commands of Dagster's own programs, and of ours."""
    dagster = pytest.importorskip("dagster._cli")
    webserver = pytest.importorskip("dagster_webserver.cli")
    from dagster._daemon.cli import create_dagster_daemon_cli
    from typer.main import get_command

    from distill_dagster.cli import app

    return {
        "dagster": dagster.create_dagster_cli(),
        "dagster-webserver": webserver.dagster_webserver,
        "dagster-daemon": create_dagster_daemon_cli(),
        "distill-dagster": get_command(app),
    }


def accepted(words: list[str], programs: dict[str, Any]) -> None:
    """The program knows the sub-commands and the options."""
    command, rest = programs[words[0]], words[1:]
    while rest and not rest[0].startswith("-"):
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in rest if word.startswith("-")} <= known, words


def test_every_command_is_one_that_its_program_takes(services: dict) -> None:
    programs = clis()
    started = json.loads(re.findall(r"^CMD (.+)$", stage("last"), flags=re.MULTILINE)[0])
    commands = [started, *(service["command"] for name, service in services.items() if "command" in service)]
    commands += [service["healthcheck"]["test"][1:] for name, service in services.items() if name == "code"]
    commands = [["distill-dagster", *words] if words[0].startswith("-") else words for words in commands]
    assert {words[0] for words in commands} == {*programs, "mlflow"}
    for words in commands:
        if words[0] != "mlflow":
            accepted(words, programs)
    for line in re.findall(r"--entrypoint dagster\s+cli (.+?)`", (DOCKER / "README.md").read_text(), flags=re.DOTALL):
        accepted(["dagster", *shlex.split(line)], programs)


@pytest.mark.slow
@pytest.mark.needs_torch
def test_mlflow_takes_its_command(services: dict) -> None:
    name, *words = services["mlflow"]["command"]
    options = [word.split("=")[0] for word in words if word.startswith("-")]
    asked = [sys.executable, "-m", name, *(word for word in words if not word.startswith("-")), "--help"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True).stdout
    assert len(options) > 4 and not [option for option in options if f"{option} " not in said]


def test_a_service_waits_for_what_there_is(services: dict) -> None:
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] == "service_healthy" and "healthcheck" in services[other], (name, other)


def test_the_context_holds_what_is_copied() -> None:
    ignored = [line for line in (REPO / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for sources in re.findall(r"^COPY (?!--from)(.+)$", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE):
        for source in sources.split()[:-1]:
            assert not [pattern for pattern in ignored if fnmatch(source.split("/")[0], pattern)], source


def test_the_image_builds_from_what_the_package_needs() -> None:
    build = stage("build")
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"], "distill_dagster", "constraints.txt"}
    copied = {source for line in re.findall(r"^COPY (.+)$", build, flags=re.MULTILINE) for source in line.split()[:-1]}
    assert needed <= copied
    (extras,) = re.findall(r'"\.\[(\w+)\$\{EXTRAS\}\]"', build)
    assert extras in project["optional-dependencies"]
    assert set(re.findall(r"-c (\S+)", build)) <= copied
    low, high = re.findall(r"\d+\.(\d+)", project["requires-python"])
    for minor in re.findall(r"^python:3\.(\d+)|^FROM python:3\.(\d+)", build, flags=re.MULTILINE):
        assert int(low) <= int("".join(minor)) < int(high)


def test_the_image_runs_as_somebody_who_owns_its_folders(services: dict) -> None:
    last = stage("last")
    (user,) = re.findall(r"^USER (\w+)$", last, flags=re.MULTILINE)
    assert user != "root" and f"{user}\n" in last and f"-o {user} -g {user}" in last
    variables = dict(re.findall(r"(\w+)=(/\S+)", last))
    made = set(re.findall(r"(/(?:var/lib|srv)/\S+)", " ".join(re.findall(r"install -d (.+?)(?:&&|$)", last, re.M))))
    mounted = {mount.split(":")[1] for service in services.values() for mount in service.get("volumes", [])}
    for name in ("DAGSTER_HOME", "DISTILL_STORE"):
        assert variables[name] in made and variables[name] in mounted, name
    assert variables["DISTILL_ASSETS_CONFIG"] in mounted


def test_the_example_environment_names_what_the_files_read() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+)[:}]", text))
    named = set(re.findall(r"^#?\s*(\w+)=", (DOCKER / ".env.example").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+):\?", text)) <= named
    assert named - {"COMPOSE_PROFILES", "COMPOSE_FILE"} <= wanted
