"""`zene run` and what goes with it, as a person types them, against a server of their own."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.model_server import Answer, Call, Fault, ModelServer, Script
from tests.planted import PASSWORD
from tests.servers import ADMIN, SECONDS, Zene, a_free_port


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer({}) as server:
        yield server


@pytest.fixture
async def zene(tmp_path: Path, model: ModelServer) -> AsyncIterator[Zene]:
    """Signed in to a running server whose default model is the demo."""
    variables = {"OPENAI_BASE_URL": f"{model.url}/v1", "OPENAI_API_KEY": "key"}
    settings = '[models.scripted]\nprovider = "openai"\n'
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "zene.toml").write_text(settings)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a.txt").write_text("old\n")
    async with Zene(tmp_path, variables, a_free_port()) as person:
        await person.up()
        await person.login()
        yield person


async def test_what_is_wrong_with_a_token_or_a_text_is_told_in_words(zene: Zene) -> None:
    client = await zene.client()
    given = {"ZENE_URL": zene.url, "ZENE_TOKEN": "nonsense"}
    code, _, err = await zene("sessions", **given)
    assert (code, "is not valid, or has expired" in err) == (1, True), err
    given["ZENE_TOKEN"] = (await client.login(ADMIN, PASSWORD)).access_token
    code, _, err = await zene("run", "bad \udcff", **given)
    assert (code, "not UTF-8" in err) == (2, True), err


async def test_a_folder_is_worked_on_live_and_the_diff_is_shown(zene: Zene) -> None:
    code, out, err = await zene("run", "Say hello", "--project", "project")
    assert code == 0, err
    assert "$ python3 hello.py" in out
    assert "Hello from Zene! You asked: Say hello" in out
    assert "+asked = 'Say hello'" in out
    assert "succeeded" in err
    assert [path.name for path in (zene.home / "project").iterdir()] == ["a.txt"]


async def test_a_diff_is_applied_where_that_is_asked_for(zene: Zene) -> None:
    code, out, err = await zene("run", "Say hello", "--project", "project", "--apply")
    assert code == 0, err
    assert "Say hello" in (zene.home / "project" / "hello.py").read_text()
    assert "diff --git" not in out
    assert "Uploading 1 file, " in err
    assert f"Changed 1 file in {zene.home / 'project'}." in err


async def test_a_session_is_gone_on_with(zene: Zene) -> None:
    _, _, err = await zene("run", "First", "--project", "project")
    session = re.findall(r"ses_\w+", err)[0]
    code, out, err = await zene("run", "-", "--session", session, stdin="Second\n")
    assert code == 0, err
    assert "You asked: Second" in out
    assert "You asked: First" not in out
    listed = (await zene("sessions"))[1]
    assert f"{session}  idle" in listed
    assert "First" in listed


async def test_what_a_model_says_is_not_obeyed_by_the_terminal(
    zene: Zene, model: ModelServer
) -> None:
    evil = "\x1b]0;title\x07 \x9b2J done"
    calls = [Call(name="shell", arguments={"command": r"printf '\033[2Jcleared'"})]
    model.scripts["scripted"] = Script(answers=[Answer(text=evil, calls=calls), Answer(text=evil)])
    code, out, err = await zene("run", evil, "--model", "scripted")
    assert code == 0, err
    assert "␛[2Jcleared" in out
    assert not set("\x1b\x07\x9b") & set(out + err)


async def test_a_failed_task_is_told_and_exits_with_1(zene: Zene, model: ModelServer) -> None:
    model.scripts["scripted"] = Script(answers=[Answer(fault=Fault(status=401))])
    code, _, err = await zene("run", "Hello", "--model", "scripted")
    assert code == 1
    assert "model_unauthorized" in err


async def test_an_empty_prompt_leaves_nothing_behind(zene: Zene, tmp_path: Path) -> None:
    for prompt in ("", "  "):
        code, _, err = await zene("run", prompt, "--project", str(tmp_path))
        assert (code, err) == (2, "zene: The prompt is empty. Say what the agent is to do.\n")
    assert "ses_" not in (await zene("sessions"))[1]


async def test_whose_sign_in_has_ended_is_told_how_to_sign_in_again(zene: Zene) -> None:
    kept = zene.home / ".config" / "zene" / "credentials.json"
    kept.write_text(re.sub(r'("\w+_token": *")[^"]*', r"\1gone", kept.read_text()))
    code, _, err = await zene("sessions")
    assert (code, err.endswith(f" Run: zene login {zene.url}\n")) == (1, True), err


async def test_an_address_where_no_zene_answers_is_told(zene: Zene) -> None:
    arguments = ("login", f"{zene.url}/elsewhere", "--email", "a@b.example")
    code, _, err = await zene(*arguments, stdin="a password\n")
    assert (code, err) == (
        1,
        f"zene: No Zene answers at {zene.url}/elsewhere; is that the whole address?\n",
    )


async def test_an_unknown_model_is_refused(zene: Zene) -> None:
    code, _, err = await zene("run", "Hello", "--project", "project", "--model", "nobodys")
    assert (code, "Uploading" in err) == (2, False)
    assert "no model 'nobodys'. It has: " in err
    assert "scripted" in err


@pytest.fixture
def sleeping(model: ModelServer) -> ModelServer:
    """The model has a command run that takes long."""
    calls = [Call(name="shell", arguments={"command": "echo begun; sleep 50; echo over"})]
    model.scripts["scripted"] = Script(answers=[Answer(calls=calls), Answer(text="Slept well.")])
    return model


@pytest.mark.usefixtures("sleeping")
async def test_ctrl_c_cancels_the_task(zene: Zene) -> None:
    running = await zene.start("run", "Sleep", "--model", "scripted")
    await running.until("begun\n")
    code, out, err = await running.end(signal.SIGINT)
    assert (code, "\nover\n" in out) == (130, False), err
    assert "cancelled" in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("sleeping")
async def test_a_session_is_cancelled_from_elsewhere(zene: Zene) -> None:
    running = await zene.start("run", "Sleep", "--model", "scripted")
    await running.until("begun\n")
    session = re.findall(r"ses_\w+", (await zene("sessions"))[1])[0]
    code, out, _ = await zene("cancel", session)
    assert (code, out.startswith("tsk_")) == (0, True)
    assert (await running.end())[0] == 130


async def test_a_task_that_cannot_wait_interrupts_the_sessions_or_is_refused(
    zene: Zene, sleeping: ModelServer
) -> None:
    script = sleeping.scripts["scripted"]
    now = {"Now": [Answer(text="Here.")]}
    sleeping.scripts["scripted"] = Script(answers=script.answers, answers_to=now)
    running = await zene.start("run", "Sleep", "--model", "scripted")
    await running.until("begun\n")
    session = re.findall(r"ses_\w+", (await zene("sessions"))[1])[0]
    more = ("run", "Now", "--session", session, "--priority", "5", "--on-busy")
    code, _, err = await zene(*more, "reject")
    assert (code, "a task that is not finished" in err) == (1, True)
    code, out, err = await zene(*more, "interrupt")
    assert (code, "Here." in out) == (0, True), err
    assert (await running.end())[0] == 130


@pytest.mark.usefixtures("sleeping")
async def test_watching_ends_without_ending_the_work(zene: Zene) -> None:
    running = await zene.start("run", "Sleep", "--model", "scripted")
    await running.until("begun\n")
    session = re.findall(r"ses_\w+", (await zene("sessions"))[1])[0]
    watching = await zene.start("attach", session)
    await watching.until("begun\n")
    assert (await watching.end(signal.SIGINT))[0] == 130
    assert f"{session}  running" in (await zene("sessions"))[1]


async def test_calls_that_wait_are_shown_and_answered(zene: Zene) -> None:
    running = await zene.start("run", "Hello", "--policy", "ask_for_writes")
    first = (await running.until(r"zene approve (apr_\w+)"))[1]
    shown = (await zene("approve"))[1]
    assert first in shown
    assert '"path": "hello.py"' in shown
    assert await zene("approve", first, "--session") == (0, f"{first} allowed\n", "")
    assert (await zene("approve", first))[0] == 1
    second = (await running.until(rf"zene approve (?!{first})(apr_\w+)"))[1]
    assert (await zene("approve", second, "--deny", "--note", "Rather not."))[0] == 0
    code, out, err = await running.end()
    assert code == 0, err
    assert "[denied]" in out


async def test_a_killed_server_only_interrupts_the_watching(zene: Zene, model: ModelServer) -> None:
    calls = [Call(name="read_file", arguments={"path": "a.txt"})]
    slow = Answer(text="word " * 200, calls=calls, delay_ms=10)
    model.scripts["scripted"] = Script(answers=[slow, Answer(text="The end.")])
    running = await zene.start("run", "Hello", "--project", "project", "--model", "scripted")
    await running.until("word word")
    await zene.programs[0].end(signal.SIGKILL)
    told = running.process.stderr
    assert told is not None
    async with asyncio.timeout(SECONDS):
        while b"The server is away; trying again." not in await told.readline():
            assert not told.at_eof()
    await zene.up()
    code, out, err = await running.end()
    assert code == 0, err
    assert "The end." in out
    assert "is away" not in err, "it is told once"


async def test_the_first_ctrl_c_stops_the_server_cleanly(zene: Zene) -> None:
    code, _, err = await zene.programs[0].end(signal.SIGINT)
    assert code == 0
    assert "Zene has stopped." in err
    assert "Traceback" not in err
    code, _, err = await zene("sessions")
    assert (code, "Is the server running?" in err) == (1, True)


async def test_an_administrator_lists_what_is_there_and_nobody_else_does(zene: Zene) -> None:
    code, out, err = await zene("workers")
    assert code == 0, err
    workers, gateways = out.split("\n\n")
    assert re.search(r"^\S+ +working +0 +25 +0 +\d\S+ +20\d\d-", workers, re.MULTILINE), workers
    assert re.search(r"^\S+ +serving +0 +0 +\d\S+ +20\d\d-", gateways, re.MULTILINE), gateways
    code, out, err = await (await zene.another("bob@zene.test"))("workers")
    assert (code, out) == (1, "")
    assert "Only a admin may do this" in err
