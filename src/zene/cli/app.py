"""What can be typed: every command, its arguments and its help, on one page.

A command's work is a coroutine of the same name in the module it is handed to. That module is
imported when the command runs, so that `zene --help` does not pay for a server.
"""

import asyncio
import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from zene.cli import terminal
from zene.domain.errors import InvalidInput, SetupError, ZeneError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended

app = typer.Typer(
    name="zene",
    help="Run coding agents for many people on one installation, safely.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
user = typer.Typer(help="Manage who may sign in, beside a running server.", no_args_is_help=True)
app.add_typer(user, name="user", rich_help_panel=None)

Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Settings file; by default zene.toml in the data folder."),
]
DataDir = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where everything is kept.")]
Server = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The server; by default the one signed in to last."),
]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model; by default the server's.")
]
Effort = Literal["none", "low", "medium", "high"]
Policy = Literal["auto", "ask_for_writes", "ask_always"]
Role = Literal["admin", "member", "viewer"]


@app.command()
def up(
    *,
    host: Annotated[str | None, typer.Option(help="The address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on [8420].")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Start gateway and worker in one process."""
    _run("up", "up", config=config, overrides={"host": host, "port": port, "data_dir": data_dir})


@app.command()
def migrate(*, data_dir: DataDir = None, config: Config = None) -> None:
    """Bring the database to this release's schema, after copying it."""
    _run("up", "migrate", config=config, overrides={"data_dir": data_dir})


@app.command()
def doctor(
    *,
    model: Annotated[
        bool, typer.Option("--model", help="Make one call to the model, too.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Say what this machine can do, what is missing and how to mend it."""
    _run("doctor", "doctor", call_model=model, config=config, overrides={"data_dir": data_dir})


@user.command("add")
def add_user(
    email: str,
    *,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = "member",
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Add a user; asks for a password, or makes one up where there is no terminal."""
    _run("users", "add", email=email, role=role, config=config, overrides={"data_dir": data_dir})


@user.command("list")
def list_users(*, data_dir: DataDir = None, config: Config = None) -> None:
    """List all users."""
    _run("users", "show", config=config, overrides={"data_dir": data_dir})


@user.command("disable")
def disable_user(
    email: str,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Let the user sign in again.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Sign a user out everywhere and for good."""
    _run(
        "users", "disable", email=email, undo=undo, config=config, overrides={"data_dir": data_dir}
    )


@user.command("password")
def change_password(email: str, *, data_dir: DataDir = None, config: Config = None) -> None:
    """Set a user's password and end all sign-ins of that user."""
    _run("users", "password", email=email, config=config, overrides={"data_dir": data_dir})


@app.command()
def login(
    server: Annotated[
        str, typer.Argument(metavar="URL", help="The server.")
    ] = "http://127.0.0.1:8420",
    email: Annotated[
        str | None, typer.Option(help="Who signs in; asked for where missing.")
    ] = None,
) -> None:
    """Sign in; asks for the password, or reads it from stdin where there is no terminal."""
    _run("login", "login", server=server, email=email)


@app.command()
def run(  # noqa: PLR0913 - one each for what can be typed
    prompt: Annotated[str, typer.Argument(help="What to do; - reads it from stdin.")],
    *,
    project: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|GIT_URL", help="The code to work on; it is uploaded."),
    ] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on in this session instead of a new one.")
    ] = None,
    model: Model = None,
    effort: Annotated[Effort | None, typer.Option(help="How much the model thinks.")] = None,
    policy: Annotated[Policy | None, typer.Option(help="Which tool calls to ask about.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply the diff to the folder at the end.")
    ] = False,
    server: Server = None,
) -> None:
    """Give the agent a task and watch it. Exits 0 when it succeeded, 1 when it failed, 3 when its budget
    was used up, 4 when its time was, 130 when it was cancelled. Ctrl-C cancels it.
    """
    request = {"prompt": prompt, "project": project, "session": session, "apply": apply}
    options = {"model": model, "effort": effort, "policy": policy}
    _run("run", "run", server=server, options=options, **request)


@app.command()
def attach(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")],
    server: Server = None,
) -> None:
    """Watch a session from its beginning. Ctrl-C stops watching, not the work."""
    _run("run", "attach", session=session, server=server)


@app.command()
def sessions(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many to show.")] = 20,
    server: Server = None,
) -> None:
    """List your sessions, the latest first."""
    _run("sessions", "sessions", limit=limit, server=server)


@app.command()
def approve(
    approval: Annotated[
        str | None,
        typer.Argument(metavar="APPROVAL", help="What to decide; without it, list what waits."),
    ] = None,
    *,
    deny: Annotated[bool, typer.Option("--deny", help="Forbid the call instead.")] = False,
    session: Annotated[
        bool, typer.Option("--session", help="Decide so for this tool in this session from now on.")
    ] = False,
    note: Annotated[str, typer.Option(help="A word to the agent.")] = "",
    server: Server = None,
) -> None:
    """Show the tool calls that wait for an answer, or answer one."""
    scope = "session" if session else "once"
    _run(
        "approvals", "approve", approval=approval, deny=deny, scope=scope, note=note, server=server
    )


@app.command()
def cancel(
    task: Annotated[str, typer.Argument(metavar="ID", help="The id of a task, or of a session.")],
    server: Server = None,
) -> None:
    """Cancel a task, or every unfinished one of a session."""
    _run("sessions", "cancel", target=task, server=server)


def main() -> None:
    """Run the command that was typed."""
    app()


def _run(module: str, name: str, **arguments: Any) -> None:
    """Run `name` of `zene.cli.<module>` and exit with what it returns; expected errors get one line."""
    command = getattr(importlib.import_module(f"zene.cli.{module}"), name)
    try:
        code = asyncio.run(command(**arguments))
    except (ZeneError, BaseExceptionGroup) as err:
        code = _told(err)
    except (KeyboardInterrupt, BrokenPipeError):
        code = INTERRUPTED
    raise typer.Exit(code)


def _told(err: ZeneError | BaseExceptionGroup) -> int:
    """Tell of an expected error, also of one that ended a group; the exit code. Raises any other."""
    if isinstance(err, BaseExceptionGroup):
        expected, unexpected = err.split(ZeneError)
        if expected is None or unexpected is not None:
            raise err
        return max(_told(each) for each in expected.exceptions)
    terminal.complain(err.message)
    return 2 if isinstance(err, InvalidInput | SetupError) else 1
