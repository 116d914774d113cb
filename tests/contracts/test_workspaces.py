"""Workspaces with real sandboxes: what agents and uploads do to them, as images and as plain folders."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.unit.workspaces.archives import archive, archive_of, chunks, git_archive
from tests.unit.workspaces.hostile import KEPT, archive_for, cases
from zene.domain.errors import Conflict, NotFound, SandboxError, ZeneError
from zene.sandbox.base import MEBIBYTE, Command, Exit, Folder, Spec
from zene.sandbox.bwrap import BubblewrapProvider
from zene.workspaces.diffs import Diff
from zene.workspaces.workspaces import Workspaces

KINDS = ["images", "folders"] if os.geteuid() == 0 else ["folders"]
REFUSALS = (413, 415, 422)
PROJECT = {
    "src/app.py": b"def answer():\n    return 41\n",
    "README.md": b"# A project\n",
    "data/large.bin": bytes(2 * MEBIBYTE),
    "latin.txt": "grün\n".encode("latin-1"),
    "pipe.txt": b"soon a pipe\n",
}


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncGenerator[BubblewrapProvider, None]:
    started = BubblewrapProvider(installation=f"test-{uuid.uuid4().hex[:12]}", data_dir=tmp_path)
    await started.start()
    yield started
    await started.close()


@pytest.fixture(params=KINDS)
async def workspaces(
    request: pytest.FixtureRequest, tmp_path: Path, provider: BubblewrapProvider
) -> AsyncGenerator[Workspaces, None]:
    made = Workspaces(
        data_dir=tmp_path,
        sandboxes=provider,
        disk_bytes=96 * MEBIBYTE if request.param == "images" else None,
        inodes=8192,
    )
    await made.start()
    assert (made.reason_for_folders is None) == (request.param == "images")
    yield made
    await made.close()
    assert str(tmp_path) not in attached()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting an image needs root")
only_images = pytest.mark.parametrize(
    "workspaces", [pytest.param("images", marks=needs_root)], indirect=True
)


def attached() -> str:
    """Which images have a loop device."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(path.read_text())
        except OSError:  # freed while we looked
            continue
    return "".join(found)


async def run(provider: BubblewrapProvider, folders: tuple[Folder, ...], script: str) -> bytes:
    """Run a script as the agent would, and end its sandbox."""
    sandbox = await provider.open(Spec(label="ses_1", folders=folders))
    output = b""
    try:
        async for frame in sandbox.run(Command(argv=("/bin/bash", "-ec", script))):
            if isinstance(frame, Exit):
                assert frame.code == 0, output
            else:
                output += frame.data
    finally:
        await sandbox.close()
    return output


async def as_agent(provider: BubblewrapProvider, workspaces: Workspaces, script: str) -> bytes:
    """Run a script in session ses_1, which is opened for it."""
    workspace = await workspaces.acquire("ses_1")
    try:
        return await run(provider, workspace.folders, script)
    finally:
        await workspace.release()


async def begin(workspaces: Workspaces, data: bytes | None = None) -> None:
    """A project of the files and a session on it."""
    await workspaces.replace_project("prj_1", chunks(archive(PROJECT) if data is None else data))
    await workspaces.create("ses_1", "prj_1")


def lines(diff: Diff) -> dict[str, tuple[str, int, int]]:
    """Its files: status, added and removed."""
    return {file.path: (file.status, file.added, file.removed) for file in diff.changes.files}


async def test_a_session_begins_with_its_projects_files_and_no_difference(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    unpacked = await workspaces.replace_project("prj_1", chunks(archive(PROJECT)))
    assert (unpacked.files, unpacked.dropped) == (len(PROJECT), ())
    assert unpacked.bytes == sum(map(len, PROJECT.values()))
    await workspaces.create("ses_1", "prj_1")
    assert (await workspaces.diff("ses_1")).patch == ""
    assert b"return 41" in await as_agent(provider, workspaces, "cat src/app.py")


async def test_agent_and_host_see_each_others_files(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await begin(workspaces)
    async with workspaces.open("ses_1") as workspace:
        await workspace.files.write("src/new.py", b"print('host')\n")
        script = "cat src/new.py; echo agent > src/new.py; rm src/app.py; id -u; stat -c %u ."
        assert await run(provider, workspace.folders, script) == b"print('host')\n10001\n10001\n"
        assert await workspace.files.read("src/new.py", 99) == b"agent\n"
        with pytest.raises(NotFound):
            await workspace.files.stat("src/app.py")
        await workspace.files.write("src/new.py", b"host again\n")


async def test_home_and_temporary_files_outlive_a_sandbox(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await workspaces.create("ses_1")
    await as_agent(provider, workspaces, "echo h > ~/kept; echo t > /tmp/kept")
    assert await as_agent(provider, workspaces, "cat ~/kept /tmp/kept") == b"h\nt\n"


async def test_an_agent_never_sees_the_baseline(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await begin(workspaces)
    seen = await as_agent(provider, workspaces, "ls -a / /workspace/..; cat /proc/self/mountinfo")
    assert b"baseline" not in seen
    if workspaces.reason_for_folders is None:
        assert b"workspaces/ses_1" not in seen


async def test_a_diff_shows_everything_that_changed(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await begin(workspaces)
    script = """
        sed -i s/41/42/ src/app.py; rm README.md; chmod +x latin.txt; echo new > new.txt
        rm pipe.txt; mkfifo pipe.txt; mkfifo other; ln -s /etc/passwd link; touch data/large.bin
        head -c 3000000 /dev/zero > big; { printf '\\0'; head -c 500 /dev/urandom; } > noise
        git init -q nested; echo hidden > nested/file.py; echo 'x' > a.log; echo '*.log' > .gitignore
        echo '* -diff filter=evil' > .gitattributes; mkdir locked; echo 1 > locked/x; touch empty
    """
    await as_agent(provider, workspaces, script)
    diff = await workspaces.diff("ses_1")
    assert lines(diff) == {
        ".gitattributes": ("added", 1, 0),
        ".gitignore": ("added", 1, 0),
        "README.md": ("deleted", 0, 1),
        "big": ("added", 0, 0),
        "empty": ("added", 0, 0),
        "latin.txt": ("modified", 0, 0),
        "link": ("added", 1, 0),
        "locked/x": ("added", 1, 0),
        "nested/file.py": ("added", 1, 0),
        "new.txt": ("added", 1, 0),
        "noise": ("added", 0, 0),
        "pipe.txt": ("deleted", 0, 1),
        "src/app.py": ("modified", 1, 1),
    }
    assert "-    return 41\n+    return 42\n" in diff.patch
    assert diff.patch.endswith("# not shown: 'big', 3000000 bytes\n")
    changes = await workspaces.changed("ses_1")
    assert (changes.files, changes.added, changes.removed) == (diff.changes.files, 7, 3)


async def test_a_patch_can_be_applied_to_what_was_uploaded(
    workspaces: Workspaces, provider: BubblewrapProvider, tmp_path: Path
) -> None:
    await begin(workspaces)
    script = "sed -i s/41/42/ src/app.py; printf 'gr\\xfcn\\nneu\\n' > latin.txt; rm README.md;"
    await as_agent(
        provider, workspaces, script + "head -c 5000 /dev/urandom | tee noise > /tmp/noise"
    )
    diff = await workspaces.diff("ses_1")
    theirs = tmp_path / "theirs"
    for name, content in PROJECT.items():
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_bytes(content)
    apply = ("git", "apply", "--unsafe-paths", "-")
    await asyncio.to_thread(
        subprocess.run, apply, cwd=theirs, input=diff.patch.encode(), check=True
    )
    assert (theirs / "src/app.py").read_bytes().endswith(b"42\n")
    assert (theirs / "latin.txt").read_bytes() == b"gr\xfcn\nneu\n"
    assert not (theirs / "README.md").exists()
    async with workspaces.open("ses_1") as workspace:
        assert await workspace.files.read("noise", 9999) == (theirs / "noise").read_bytes()


async def test_a_file_that_became_a_link_does_not_mislead_about_others(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    """git shows such a file twice, as deleted and as new."""
    await begin(workspaces)
    script = "ln -sf latin.txt README.md; printf 'gr\xfcn\nneu\n' > latin.txt; sed -i s/41/42/ src/app.py"
    await as_agent(provider, workspaces, script)
    patch = (await workspaces.diff("ses_1")).patch
    assert sorted(re.findall(r"(?m)^diff --git a/(\S+) ", patch)) == [
        "README.md",
        "README.md",
        "latin.txt",
        "src/app.py",
    ]
    assert "+    return 42\n" in patch
    assert "\ufffd" not in patch


async def test_a_diff_is_made_while_the_agent_works(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await begin(workspaces)
    async with workspaces.open("ses_1") as workspace:
        busy = "for n in $(seq 400); do echo $n > n$((n % 7)); echo $n > src/app.py; done"
        working = asyncio.ensure_future(run(provider, workspace.folders, busy))
        diffs = await asyncio.gather(*(workspaces.diff("ses_1") for _ in range(3)))
        await working
    assert all("src/app.py" in lines(diff) for diff in [*diffs[1:], await workspaces.diff("ses_1")])


async def test_a_very_large_diff_is_cut_and_says_so(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await workspaces.create("ses_1")
    script = "for n in $(seq 12); do yes $n$n$n$n$n | head -c 900000 > f$n; done"
    await as_agent(provider, workspaces, script)
    diff = await workspaces.diff("ses_1")
    assert diff.changes.is_cut
    assert len(diff.patch) < 5 << 20
    assert diff.patch.splitlines()[-1].startswith("# cut here")
    assert len(diff.changes.files) == 12


async def test_a_diff_that_is_cut_within_a_letter_says_so(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await workspaces.create("ses_1")
    await as_agent(
        provider, workspaces, "for n in 1 2 3 4 5 6; do yes 漢字漢字漢 | head -c 960000 > f$n; done"
    )
    diff = await workspaces.diff("ses_1")
    assert diff.changes.is_cut
    assert diff.patch.splitlines()[-1].startswith("# cut here")
    assert "f4" in diff.patch
    assert "GIT binary patch" not in diff.patch


async def test_touching_a_file_is_no_difference_and_hiding_one_is(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await begin(workspaces)
    hide = "touch README.md; touch -r src/app.py t; sed -i s/41/99/ src/app.py; touch -r t src/app.py; rm t"
    await as_agent(provider, workspaces, hide)
    assert lines(await workspaces.diff("ses_1")) == {"src/app.py": ("modified", 1, 1)}


@only_images
async def test_a_hostile_archive_is_refused_whole(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await begin(workspaces)
    got: dict[str, str] = {}
    for case in cases("archive"):
        try:
            await workspaces.replace_project("prj_1", chunks(archive_for(case)))
        except ZeneError as err:
            is_well_told = err.message.isascii() and err.message.isprintable()
            code = (
                case["expect"] if err.code == "workspace_full" and err.status == 413 else err.code
            )
            got[case["id"]] = code if is_well_told and err.status in REFUSALS else repr(err)
        else:
            got[case["id"]] = KEPT
            await workspaces.replace_project("prj_1", chunks(archive(PROJECT)))
        await workspaces.create(f"ses_{case['id']}", "prj_1")
        async with workspaces.open(f"ses_{case['id']}") as workspace:
            assert await workspace.files.read("README.md", 99) == PROJECT["README.md"]
        await workspaces.delete(f"ses_{case['id']}")
    assert got == {case["id"]: case["expect"] for case in cases("archive")}


async def test_what_an_agent_plants_is_no_file_of_anyone_else(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await workspaces.create("ses_1")
    got = {}
    async with workspaces.open("ses_1") as workspace:
        for case in cases("agent"):
            await run(provider, workspace.folders, case["shell"])
            with pytest.raises(ZeneError) as refused:
                await asyncio.wait_for(workspace.files.read(case["path"], 99), 1)
            got[case["id"]] = refused.value.code
    assert got == {case["id"]: case["expect"] for case in cases("agent")}


async def test_an_upload_that_breaks_off_anywhere_leaves_what_was_there(
    workspaces: Workspaces,
) -> None:
    await begin(workspaces)
    data = archive({"README.md": b"other", "noise": os.urandom(300_000)})

    async def broken(tenths: int) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks(data[: len(data) * tenths // 10], 10_000):
            yield chunk
        raise ConnectionResetError("the client is gone")

    for tenths in range(0, 11, 1 if workspaces.reason_for_folders is None else 5):
        with pytest.raises(ConnectionResetError):
            await workspaces.replace_project("prj_1", broken(tenths))
    await workspaces.create("ses_2", "prj_1")
    async with workspaces.open("ses_2") as workspace:
        assert await workspace.files.read("README.md", 99) == PROJECT["README.md"]


async def test_of_two_uploads_at_once_one_wins(workspaces: Workspaces) -> None:
    results = await asyncio.gather(
        *(workspaces.replace_project("prj_1", chunks(archive(PROJECT))) for _ in range(2)),
        return_exceptions=True,
    )
    assert [isinstance(result, Conflict) for result in results].count(True) == 1
    assert (await workspaces.replace_project("prj_1", chunks(archive({"x": b"1"})))).files == 1


async def test_sessions_keep_their_files_when_the_project_is_replaced(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await begin(workspaces)
    await as_agent(provider, workspaces, "echo mine > mine")
    await workspaces.replace_project("prj_1", chunks(archive({"other": b"x"})))
    await workspaces.create("ses_2", "prj_1")
    async with workspaces.open("ses_1") as one, workspaces.open("ses_2") as two:
        assert len((await one.files.list()).entries) == len(PROJECT) + 1
        assert [entry.name for entry in (await two.files.list()).entries] == ["other"]
    assert list(lines(await workspaces.diff("ses_1"))) == ["mine"]


async def test_what_a_session_will_begin_with_is_known_before_it_has_a_workspace(
    workspaces: Workspaces,
) -> None:
    assert await workspaces.begins_with("ses_1") == {}
    assert await workspaces.begins_with("ses_1", "prj_1") == {}
    rules = {"AGENTS.md": b"Use tabs.\n", "sub/CLAUDE.md": b"not at the root"}
    await workspaces.replace_project("prj_1", chunks(archive(PROJECT | rules)))
    assert await workspaces.begins_with("ses_1", "prj_1") == {"AGENTS.md": b"Use tabs.\n"}
    await workspaces.replace_project("prj_1", chunks(archive(PROJECT)))
    assert await workspaces.begins_with("ses_1", "prj_1") == {}
    await workspaces.create("ses_1", "prj_1")
    assert await workspaces.begins_with("ses_1", "prj_1") is None
    await workspaces.delete_project("prj_1")
    assert await workspaces.begins_with("ses_2", "prj_1") == {}


async def test_of_a_git_folder_only_objects_and_refs_are_taken(
    workspaces: Workspaces, provider: BubblewrapProvider, tmp_path: Path
) -> None:
    data = await asyncio.to_thread(git_archive, tmp_path / "repository")
    unpacked = await workspaces.replace_project("prj_1", chunks(data))
    assert set(unpacked.dropped) >= {
        ".git/config",
        ".git/hooks",
        ".git/info",
        ".git/index",
        ".git/objects/info/alternates",
        "vendored/.git/config",
    }
    await workspaces.create("ses_1", "prj_1")
    script = "git status --porcelain; git log --all --format=%s; git branch --show-current; ls .git | grep -c hooks"
    said = await as_agent(
        provider, workspaces, script + " || git config --get core.fsmonitor || true"
    )
    assert said.decode().splitlines() == ["?? vendored/", "second", "first", "feature", "0"]
    assert (await workspaces.diff("ses_1")).patch == ""


async def test_a_damaged_git_folder_is_refused(workspaces: Workspaces) -> None:
    members = [{"name": ".git/HEAD"}, {"name": ".git/refs/heads/main"}, {"name": "x"}]
    with pytest.raises(ZeneError) as refused:
        await workspaces.replace_project("prj_1", chunks(archive_of(members)))
    assert (refused.value.status, refused.value.code) == (422, "archive_git_damaged")


@only_images
async def test_what_does_not_fit_into_a_workspace_is_too_large(workspaces: Workspaces) -> None:
    data = archive({f"noise-{n}": os.urandom(10 << 20) for n in range(6)})
    with pytest.raises(ZeneError) as refused:
        await workspaces.replace_project("prj_1", chunks(data))
    assert (refused.value.status, refused.value.code) == (413, "workspace_full"), (
        refused.value.message
    )
    await workspaces.create("ses_1", "prj_1")


async def test_a_session_cannot_be_compared_before_it_exists(workspaces: Workspaces) -> None:
    with pytest.raises(NotFound):
        await workspaces.diff("ses_none")


async def test_a_provider_that_starts_nothing_is_reported(
    workspaces: Workspaces, provider: BubblewrapProvider
) -> None:
    await workspaces.create("ses_1")
    await provider.close()
    with pytest.raises((SandboxError, ZeneError)):
        await workspaces.diff("ses_1")


@needs_root
def test_an_ordinary_user_gets_the_same_in_plain_folders() -> None:
    base = Path(tempfile.gettempdir(), f"zene-test-{uuid.uuid4().hex}")  # in no folder of root's
    program = (sys.executable, "-m", "tests.contracts.sandbox.as_ordinary_user", "pytest")
    done = subprocess.run(
        (*program, "-q", "-p", "no:cacheprovider", f"--basetemp={base}", __file__),
        env={name: value for name, value in os.environ.items() if name != "CI"},  # it may skip
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(base, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
