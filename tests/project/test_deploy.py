"""What `deploy/` ships fits the program: its commands are there, its variables are settings, nginx takes it."""

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from zene.cli.app import app
from zene.settings import OTHER_VARIABLES, TYPES, variable

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
UNITS = sorted(DEPLOY.glob("systemd/*.service"))


def compose() -> dict[str, Any]:
    """The compose file, its anchors resolved."""
    found: dict[str, Any] = msgspec.yaml.decode((DEPLOY / "compose.yaml").read_bytes())
    return found


def commands() -> Iterator[list[str]]:
    """Every way in which what is shipped starts `zene`."""
    for service in compose()["services"].values():
        if service.get("image") == "zene":
            yield service["command"]
    for unit in UNITS:
        yield shlex.split(exec_start(unit).replace("%i", "1"))[1:]
    shipped = re.search(r"^CMD (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert shipped
    yield msgspec.json.decode(shipped[1])


def exec_start(unit: Path) -> str:
    """The command line of a unit."""
    parser = configparser.RawConfigParser(strict=False)
    parser.read(unit)
    return parser["Service"]["execstart"]


@pytest.mark.parametrize("command", [*commands()], ids=" ".join)
def test_what_is_started_is_a_command(command: list[str]) -> None:
    name, *arguments = command
    assert isinstance(app, click.Group)
    subcommand = app.get_command(click.Context(app), name)
    assert subcommand is not None
    subcommand.make_context(name, arguments, resilient_parsing=False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    known = {variable(name) for name in TYPES} | set(OTHER_VARIABLES)
    assert set(re.findall(r"\bZENE_[A-Z_]+\b", path.read_text())) <= known


def test_every_place_of_a_program_is_the_same() -> None:
    program = re.search(r"COPY --from=build (\S+) ", (DEPLOY / "Dockerfile").read_text())
    assert program
    assert {shlex.split(exec_start(unit))[0] for unit in UNITS} == {f"{program[1]}/bin/zene"}


def test_the_proxies_that_are_trusted_are_those_of_the_network() -> None:
    composed = compose()
    (network,) = composed["networks"]["default"]["ipam"]["config"]
    trusted = composed["services"]["gateway-1"]["environment"]["ZENE_TRUSTED_PROXIES"]
    assert trusted == network["subnet"]
