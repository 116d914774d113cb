"""What can be typed: every command, its arguments and its help, on one page.

A command's work is a coroutine of the module it is handed to. That module is imported when the command
runs, so that `zene --help` does not pay for a server. Click reads the arguments: the server imports it
anyway, and typer would bring pydantic along, 80 ms of every start.
"""

import asyncio
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from zene.cli import garbage, terminal
from zene.domain.errors import InvalidInput, SetupError, ZeneError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended

_OPTIONS = ("model", "effort", "policy", "on_busy", "priority")

Command = TypeVar("Command", bound=Callable[..., object])

_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings file; by default zene.toml in the data folder.",
)
_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where everything is kept.",
)
_server = click.option(
    "--server", metavar="URL", help="The server; by default the one signed in to last."
)


def installation(command: Command) -> Command:
    """The options of a command that works on the data folder itself."""
    return _data_dir(_config(command))


@click.group(context_settings={"max_content_width": 100})
@click.version_option(package_name="zene", message="%(package)s %(version)s")
def app() -> None:
    """Run coding agents for many people on one installation, safely."""


@app.command()
@click.option("--host", help="The address to listen on [127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on [8420].")
@installation
def up(host: str | None, port: int | None, data_dir: Path | None, config: Path | None) -> None:
    """Start gateway and worker in one process."""
    overrides = {"host": host, "port": port, "data_dir": data_dir}
    _serve("up", config=config, overrides=overrides)


@app.command()
@click.option("--host", help="The address to listen on [127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on [8420].")
@installation
def gateway(host: str | None, port: int | None, data_dir: Path | None, config: Path | None) -> None:
    """Start a gateway of its own, on a shared store and bus. It needs the installation's key."""
    overrides = {"host": host, "port": port, "data_dir": data_dir}
    _serve("gateway", config=config, overrides=overrides)


@app.command()
@click.option("--slots", type=click.IntRange(1), help="Tasks to work on at once [25].")
@installation
def worker(slots: int | None, data_dir: Path | None, config: Path | None) -> None:
    """Start a worker of its own, on a shared store and bus. It needs the installation's data folder."""
    _serve("worker", config=config, overrides={"slots": slots, "data_dir": data_dir})


@app.command()
@installation
def migrate(data_dir: Path | None, config: Path | None) -> None:
    """Make an installation or bring it to this release: schema, data folder, key, first administrator."""
    _run("migrate", "migrate", config=config, overrides={"data_dir": data_dir})


@app.command()
@click.argument("folder", type=click.Path(path_type=Path))
@installation
def backup(folder: Path, data_dir: Path | None, config: Path | None) -> None:
    """Copy store, files and key into a new folder, while Zene runs."""
    _run("backup", "backup", folder=folder, config=config, overrides={"data_dir": data_dir})


@app.command()
@click.argument("folder", type=click.Path(path_type=Path))
@installation
def restore(folder: Path, data_dir: Path | None, config: Path | None) -> None:
    """Make a new installation from a backup, in an empty store and an empty data folder."""
    _run("backup", "restore", folder=folder, config=config, overrides={"data_dir": data_dir})


@app.command()
@click.option("--model", is_flag=True, help="Make one call to the model, too.")
@installation
def doctor(model: bool, data_dir: Path | None, config: Path | None) -> None:  # noqa: FBT001
    """Say what this machine can do, what is missing and how to mend it."""
    _run("doctor", "doctor", call_model=model, config=config, overrides={"data_dir": data_dir})


@app.group()
def user() -> None:
    """Manage who may sign in, beside a running server."""


@user.command("add")
@click.argument("email")
@click.option(
    "--role",
    type=click.Choice(["admin", "member", "viewer"]),
    default="member",
    help="What the user may do [member].",
)
@installation
def add_user(email: str, role: str, data_dir: Path | None, config: Path | None) -> None:
    """Add a user; asks for a password, or makes one up where there is no terminal."""
    _run("users", "add", email=email, role=role, config=config, overrides={"data_dir": data_dir})


@user.command("list")
@installation
def list_users(data_dir: Path | None, config: Path | None) -> None:
    """List all users."""
    _run("users", "show", config=config, overrides={"data_dir": data_dir})


@user.command("disable")
@click.argument("email")
@click.option("--undo", is_flag=True, help="Let the user sign in again.")
@installation
def disable_user(
    email: str,
    undo: bool,  # noqa: FBT001
    data_dir: Path | None,
    config: Path | None,
) -> None:
    """Sign a user out everywhere and for good."""
    overrides = {"data_dir": data_dir}
    _run("users", "disable", email=email, undo=undo, config=config, overrides=overrides)


@user.command("password")
@click.argument("email")
@installation
def change_password(email: str, data_dir: Path | None, config: Path | None) -> None:
    """Set a user's password and end all sign-ins of that user."""
    _run("users", "password", email=email, config=config, overrides={"data_dir": data_dir})


@user.command("quota")
@click.argument("email")
@click.option("--tokens", type=click.IntRange(0, 1 << 53), help="Input and output, together.")
@click.option(
    "--period",
    type=click.Choice(["day", "month", "total"]),
    default="total",
    help="What begins anew when, in UTC [total].",
)
@click.option("--none", is_flag=True, help="Lift the quota.")
@click.option(
    "--max-active-tasks",
    type=click.IntRange(0, 10_000),
    help="How many tasks at once; 0 for the server's own cap.",
)
@installation
def set_quota(data_dir: Path | None, config: Path | None, **chosen: Any) -> None:
    """Show how many tokens a user may use and has used, or change it; tasks that wait for tokens go on."""
    _run("users", "quota", config=config, overrides={"data_dir": data_dir}, **chosen)


@app.command()
@click.argument("server", metavar="URL", default="http://127.0.0.1:8420")
@click.option("--email", help="Who signs in; asked for where missing.")
def login(server: str, email: str | None) -> None:
    """Sign in; asks for the password, or reads it from stdin where there is no terminal."""
    _run("login", "login", server=server, email=email)


@app.command()
@click.argument("prompt")
@click.option("--project", metavar="FOLDER|GIT_URL", help="The code to work on; it is uploaded.")
@click.option("--session", metavar="ID", help="Go on in this session instead of a new one.")
@click.option("--model", metavar="NAME", help="The model; by default the server's.")
@click.option(
    "--effort",
    type=click.Choice(["none", "low", "medium", "high"]),
    help="How much the model thinks.",
)
@click.option(
    "--policy",
    type=click.Choice(["auto", "ask_for_writes", "ask_always"]),
    help="Which tool calls to ask about.",
)
@click.option(
    "--on-busy",
    type=click.Choice(["enqueue", "interrupt", "reject"]),
    default="enqueue",
    help="Where the session works: wait, cancel that and go first, or leave it [enqueue].",
)
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    default=0,
    help="Among what you have queued; higher goes first [0].",
)
@click.option("--apply", is_flag=True, help="Apply the diff to the folder at the end.")
@_server
def run(server: str | None, **request: Any) -> None:
    """Give the agent a task and watch it. PROMPT says what to do; - reads it from stdin.

    Exits with 0 when the task succeeded, 1 when it failed, 3 when its budget was used up, 4 when its
    time was, and 130 when it was cancelled. Ctrl-C cancels it.
    """
    options = {name: request.pop(name) for name in _OPTIONS}
    _run("run", "run", server=server, options=options, **request)


@app.command()
@click.argument("session")
@_server
def attach(session: str, server: str | None) -> None:
    """Watch a session from its beginning. Ctrl-C stops watching, not the work."""
    _run("run", "attach", session=session, server=server)


@app.command()
@_server
def workers(server: str | None) -> None:
    """List the installation's workers and gateways, for administrators."""
    _run("workers", "workers", server=server)


@app.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, help="How many to show [20].")
@_server
def sessions(limit: int, server: str | None) -> None:
    """List your sessions, the latest first."""
    _run("sessions", "sessions", limit=limit, server=server)


@app.command()
@click.argument("approval", required=False)
@click.option("--deny", is_flag=True, help="Forbid the call instead.")
@click.option(
    "--session",
    "scope",
    flag_value="session",
    default="once",
    help="Decide so for this tool in this session from now on.",
)
@click.option("--note", default="", help="A word to the agent.")
@_server
def approve(**answer: Any) -> None:
    """Show the tool calls that wait for an answer, or answer one."""
    _run("approvals", "approve", **answer)


@app.command()
@click.argument("task")
@click.argument("text")
@_server
def steer(task: str, text: str, server: str | None) -> None:
    """Say something to a task while it is worked on."""
    _run("sessions", "steer", task=task, text=text, server=server)


@app.command()
@click.argument("target", metavar="ID")
@_server
def cancel(target: str, server: str | None) -> None:
    """Cancel a task, or every unfinished one of a session. ID is of a task or a session."""
    _run("sessions", "cancel", target=target, server=server)


def main() -> None:
    """Run the command that was typed."""
    app()


def _serve(name: str, **arguments: Any) -> NoReturn:
    """Run a server, on a faster loop: a server makes up for its import, what ends at once never does."""
    garbage.starting()
    _run(name, name, on_loop="uvloop", **arguments)


def _run(module: str, name: str, *, on_loop: str = "asyncio", **arguments: Any) -> NoReturn:
    """Run `name` of `zene.cli.<module>` and exit with what it returns; expected errors get one line."""
    command = getattr(importlib.import_module(f"zene.cli.{module}"), name)
    new_loop = importlib.import_module(on_loop).new_event_loop
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            code = runner.run(command(**arguments))
    except (ZeneError, BaseExceptionGroup) as err:
        code = _told(err)
    except (KeyboardInterrupt, BrokenPipeError):
        code = INTERRUPTED
    sys.exit(code)


def _told(err: ZeneError | BaseExceptionGroup) -> int:
    """Tell of an expected error, also of one that ended a group; the exit code. Raises any other."""
    if isinstance(err, BaseExceptionGroup):
        expected, unexpected = err.split(ZeneError)
        if expected is None or unexpected is not None:
            raise err
        return max(_told(each) for each in expected.exceptions)
    terminal.complain(err.message)
    return 2 if isinstance(err, InvalidInput | SetupError) else 1
