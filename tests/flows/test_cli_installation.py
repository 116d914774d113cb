"""Commands that work on the data folder itself, as a person types them."""

import http.server
import os
import pty
import select
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.nginx_server import make_certificate
from zene.settings.folder import claimed

Zene = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def zene(tmp_path: Path) -> Zene:
    """Runs `zene` on an empty home and data folder."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ZENE_")}
    environ |= {"HOME": str(tmp_path), "ZENE_DATA_DIR": str(tmp_path / "data")}

    def run(
        *arguments: str, stdin: str = "", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "zene", *arguments],
            input=stdin,
            env=environ | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_help_imports_nothing_but_what_reads_the_arguments() -> None:
    """What `zene --help` takes is what it imports: Python itself, click and two small modules."""
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "zene", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    ours = {name for name in imported if name.startswith("zene.")}
    assert ours == {
        "zene.cli",
        "zene.cli.app",
        "zene.cli.garbage",
        "zene.cli.terminal",
        "zene.domain",
        "zene.domain.errors",
    }
    assert not imported & {"httpx", "msgspec", "sqlalchemy", "starlette", "uvicorn"}


def test_users_are_added_listed_and_disabled(zene: Zene) -> None:
    added = zene(
        "user", "add", "Ann@zene.example", "--role", "viewer", stdin="correct horse battery\n"
    )
    assert added.returncode == 0
    assert added.stderr.startswith("There was no Zene in ")
    assert "Password" not in added.stdout
    listed = zene("user", "list")
    assert "ann@zene.example  viewer  active" in listed.stdout
    assert listed.stderr == ""
    assert zene("user", "disable", "ann@zene.example").returncode == 0
    assert "disabled" in zene("user", "list").stdout
    assert zene("user", "disable", "ANN@zene.example", "--undo").returncode == 0
    assert "active" in zene("user", "list").stdout


def test_a_users_quota_is_set_shown_and_lifted(zene: Zene) -> None:
    zene("user", "add", "ann@zene.example", stdin="correct horse battery\n")
    ann = "user", "quota", "ann@zene.example"
    shown = zene(*ann, "--tokens", "5000", "--period", "day", "--max-active-tasks", "2")
    told = "0 used, 0 reserved, of 5000 a day; at most 2 tasks at once"
    assert (shown.returncode, shown.stdout) == (0, f"ann@zene.example: {told}.\n")
    assert zene(*ann).stdout == shown.stdout
    assert "active  5000 a day  2 " in zene("user", "list").stdout
    lifted = zene(*ann, "--none", "--max-active-tasks", "0").stdout
    assert "no quota; as many tasks at once as the server lets" in lifted
    assert "active  none   server's " in zene("user", "list").stdout
    both = zene(*ann, "--none", "--tokens", "1")
    assert (both.returncode, "Either --tokens or --none." in both.stderr) == (2, True)


def test_without_a_password_one_is_made_up_and_shown_once(zene: Zene) -> None:
    added = zene("user", "add", "ann@zene.example")
    changed = zene("user", "password", "ann@zene.example")
    passwords = [
        line
        for each in (added, changed)
        for line in each.stdout.splitlines()
        if "Password: " in line
    ]
    assert len(set(passwords)) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("user", "disable", "nobody@zene.example"), 1, "There is no user nobody@zene.example"),
        (("user", "password", "nobody@zene.example"), 1, "There is no user"),
        (("user", "add", "ann@zene.example"), 2, "10 to 1024 characters"),
        (("user", "add", "ann@zene.example", "--role", "king"), 2, "king"),
        (("user", "add", "ann"), 2, "'ann' is no e-mail address: write NAME@HOST"),
        (("login", "http://127.0.0.1:9", "--email", "a@b"), 1, "Is the server running?"),
        (("migrate", "--config", "nowhere.toml"), 2, "nowhere.toml"),
        (("sessions",), 1, "zene login URL"),
        (("cancel", "foo"), 2, "'foo' is the id of neither a task"),
        (("sessions", "--server", "ftp://host"), 2, "no server's URL"),
        (("login", "http://127.0.0.1:99999", "--email", "a@b"), 2, "no server's URL"),
        (("run", "x", "--apply"), 2, "--apply needs --project FOLDER"),
        (("run", "x", "--project", "a", "--session", "b"), 2, "--project or --session"),
    ],
)
def test_expected_errors_are_told_in_words(
    zene: Zene, arguments: tuple[str, ...], code: int, told: str
) -> None:
    refused = zene(*arguments, stdin="short\n")
    assert refused.returncode == code
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_certificate_of_nobodys_is_told_with_what_to_do(zene: Zene, tmp_path: Path) -> None:
    make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "zene.crt", tmp_path / "zene.key")
    handler = http.server.BaseHTTPRequestHandler  # it answers everything with 501
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        login = partial(
            zene, "login", f"https://127.0.0.1:{server.server_port}", "--email", "a@b", stdin="x\n"
        )
        refused, trusted = login(), login(SSL_CERT_FILE=str(tmp_path / "zene.crt"))
        server.shutdown()
    assert "in SSL_CERT_FILE." in refused.stderr
    assert "The server answered with something that is not Zene's." in trusted.stderr


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"ZENE_STORE": "postgresql://zene@127.0.0.1:99999/zene"}, "ZENE_STORE cannot be used"),
        ({"ZENE_STORE": "postgresql://zene@127.0.0.1:abc/zene"}, "ZENE_STORE cannot be used"),
        ({"ZENE_TRUSTED_PROXIES": '["172.30.0.0/24"]'}, "ZENE_TRUSTED_PROXIES says"),
        ({"ZENE_TRUSTED_PROXIES": "10.0.0.7, 300.1.1.1"}, "ZENE_TRUSTED_PROXIES says 300.1.1.1"),
    ],
)
def test_what_the_environment_says_wrongly_is_told_in_words(
    zene: Zene, variables: dict[str, str], told: str
) -> None:
    refused = zene("up", "--port", "0", **variables)
    assert refused.returncode == 2
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_misspelt_variable_is_an_error_that_names_the_right_one(zene: Zene) -> None:
    refused = zene("up", ZENE_PRT="1")
    assert refused.returncode == 2
    assert "Did you mean ZENE_PORT?" in refused.stderr


def test_a_folder_in_use_is_refused_with_who_has_it(zene: Zene, tmp_path: Path) -> None:
    with claimed(tmp_path / "data"):
        refused = zene("up", "--port", "0")
    assert refused.returncode == 2
    assert f"process {os.getpid()}" in refused.stderr


def test_a_folder_that_cannot_be_written_is_told_with_another_way(
    zene: Zene, tmp_path: Path
) -> None:
    (tmp_path / "data" / "lock").mkdir(parents=True)
    refused = zene("up", "--port", "0")
    assert refused.returncode == 2
    assert "Choose another data folder with --data-dir" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_port_in_use_is_refused_with_its_number(zene: Zene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = zene("up", "--port", str(port))
    assert refused.returncode == 2
    assert (
        f"port {port}: Address already in use. Choose another port with --port." in refused.stderr
    )
    assert "Traceback" not in refused.stderr


def test_a_start_that_failed_does_not_use_up_the_first_password(zene: Zene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert zene("up", "--port", str(taken.getsockname()[1])).returncode == 2
    assert "@" not in zene("user", "list").stdout


def test_where_no_sandbox_is_possible_the_start_is_refused_with_the_cure(tmp_path: Path) -> None:
    """Bubblewrap is hidden in a mount namespace of the test's own."""
    apart = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    hidden = f"mount --bind /dev/null {shutil.which('bwrap')} && exec {sys.executable} -m zene up --port 0"
    refused = subprocess.run(
        ["unshare", *apart, "sh", "-c", hidden],
        env=os.environ | {"HOME": str(tmp_path), "ZENE_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    assert "apt-get install bubblewrap" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_administrators_address_that_is_none_is_refused(zene: Zene) -> None:
    refused = zene("up", "--port", "0", ZENE_ADMIN_EMAIL="me")
    assert refused.returncode == 2
    assert "'me' is no e-mail address" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        (("login", "http://127.0.0.1:9"), "E-mail: "),
        (("login", "http://127.0.0.1:9", "--email", "a@b.example"), "Password of a@b.example: "),
        (("user", "add", "a@b.example"), "New password for a@b.example"),
    ],
)
def test_ctrl_c_ends_a_question_at_once(
    tmp_path: Path, arguments: tuple[str, ...], asks: str
) -> None:
    environ = os.environ | {"HOME": str(tmp_path), "ZENE_DATA_DIR": str(tmp_path / "data")}
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "zene", *arguments], environ)
    seen = b""
    while asks.encode() not in seen:
        assert select.select([terminal], [], [], 60)[0], seen
        seen += os.read(terminal, 4096)
    waits_for_answer(child)
    os.write(terminal, b"\x03")
    assert select.select([terminal], [], [], 60)[0]
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130


def waits_for_answer(process: int) -> None:
    """Look until it sleeps: what is typed between the question and the read would be an answer too early."""
    give_up = time.monotonic() + 60
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < give_up
        os.sched_yield()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_what_the_start_tells_to_type_can_be_typed(
    tmp_path: Path,
    elsewhere: bool,  # noqa: FBT001
) -> None:
    where = ["--data-dir", str(tmp_path / "data")] if elsewhere else []
    program = Path(sys.executable).with_name("zene")
    server = subprocess.Popen(
        [program, "up", "--port", "0", *where],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=program.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        lines: list[str] = []
        while not lines or "First task" not in lines[-1]:
            lines.append(server.stdout.readline())
            assert lines[-1], lines
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert lines[-1].startswith("  First task: bin/zene login http://127.0.0.1:")
    assert lines[-1].endswith(' && bin/zene run "Say hello"\n')
    [another] = [line.partition("To set another: ")[2] for line in lines if "another" in line]
    command = shlex.split(another)
    assert command == ["bin/zene", "user", "password", "admin@localhost", *where]
    changed = subprocess.run(
        command,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=program.parent.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "admin@localhost has a new password" in changed.stdout


def test_an_empty_password_is_not_sent(zene: Zene) -> None:
    refused = zene("login", "http://127.0.0.1:9", "--email", "a@b.example")
    assert (refused.returncode, refused.stderr) == (2, "zene: The password is empty.\n")


def test_off_loopback_plain_http_is_refused(zene: Zene) -> None:
    refused = zene("up", "--host", "0.0.0.0")
    assert refused.returncode == 2
    assert "allow_insecure_http" in refused.stderr


def test_a_read_only_folder_that_is_not_there_is_told_at_the_start(zene: Zene) -> None:
    refused = zene("up", "--port", "0", ZENE_SANDBOX_READ_ONLY_PATHS="/usr/share,/not/there")
    assert refused.returncode == 2
    assert "/not/there" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_doctor_says_what_there_is(zene: Zene) -> None:
    looked = zene("doctor")
    assert looked.returncode == 0
    for what in ("versions", "data folder", "bwrap", "store", "sandbox", "model"):
        assert what in looked.stdout


def test_doctor_sees_a_key_and_a_folder_that_do_not_fit(zene: Zene, tmp_path: Path) -> None:
    made = zene("migrate")
    assert made.returncode == 0, made.stderr
    looked = zene("doctor")
    assert looked.returncode == 0, looked.stdout
    assert "also the data folder's" in looked.stdout
    assert "opens what is sealed" in looked.stdout
    looked = zene("doctor", ZENE_SECRET_KEY="a key of another installation, long enough")
    assert (looked.returncode, "another ZENE_SECRET_KEY" in looked.stdout) == (1, True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "installation").write_text("another\n")
    looked = zene(
        "doctor", ZENE_STORE=f"sqlite:///{tmp_path}/data/zene.db", ZENE_DATA_DIR=str(other)
    )
    assert (looked.returncode, "belongs to installation another" in looked.stdout) == (1, True)


def test_doctor_calls_the_model_where_it_is_told_to(zene: Zene) -> None:
    assert "answered" in zene("doctor", "--model").stdout
    unreachable = zene(
        "doctor", "--model", ZENE_MODEL="openai:x", OPENAI_BASE_URL="http://127.0.0.1:9/v1"
    )
    assert unreachable.returncode == 1
    assert "model call" in unreachable.stdout


def test_doctor_names_a_missing_program_with_its_package(zene: Zene, tmp_path: Path) -> None:
    looked = zene("doctor", PATH=str(tmp_path))
    assert looked.returncode == 1
    assert "apt install ripgrep" in looked.stdout
