"""`inlay export --push`: what lies in the folder is what the hub gets, for nobody else to see unless asked."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
from hub_server import WRITES, HubServer, Repository
from huggingface_hub import constants
from tiny_runs import inlay

import inlay as package
from inlay.tuner.export import destination, push
from inlay.tuner.problems import AnswerNo, Failure, Interrupted, MachineError, RequestError

CANARY = "hf_canaryCanaryCanaryCanary0123456789"


@pytest.fixture(scope="module")
def hub():
    server = HubServer()
    server.tokens[CANARY] = WRITES
    yield server
    server.shutdown()
    server.server_close()


def connect(patch, hub) -> None:
    """Lets the hub's client find that hub, with a token."""
    patch.setenv("HF_TOKEN", CANARY)
    patch.setattr(constants, "ENDPOINT", hub.address)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture(scope="module")
def pushed(hub, tiny_models, tmp_path_factory):
    """A folder with a run and with its export, which was pushed; exit code, stdout and stderr of that; what the hub
    then has, and what it was sent."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_runs.world(folder, tiny_models("llama"))
        code, _, err = inlay("run", tiny_runs.recipe(folder, "lora", "dialogue").name, "--output", "run")
        assert code == 0, err
        connect(patch, hub)
        done = inlay("export", "run", "--to", "ship", "--push", "chatty")
    return folder, done, dict(hub.repositories), list(hub.bodies)


@pytest.fixture
def online(hub, pushed, monkeypatch, tmp_path):
    """That hub with nothing in it, and a copy of that folder as the current one."""
    hub.repositories.clear()
    hub.faults.clear()
    hub.at_commit = lambda: None
    connect(monkeypatch, hub)
    monkeypatch.chdir(shutil.copytree(pushed[0], tmp_path / "copy"))
    return hub


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_in_the_folder_is_on_the_hub_and_private(pushed):
    folder, (code, out, err), repositories, _ = pushed
    assert code == 0, err
    assert list(repositories) == ["me/chatty"]
    repository = repositories["me/chatty"]
    assert repository.private
    assert repository.files == contents(folder / "ship")
    assert len(repository.commits) == 1
    last = out.splitlines()[-1]
    assert last.startswith("push    http://127.0.0.1:")
    assert "/me/chatty, private; commit " in last
    assert "same output in 6 of 6 rows" in out


def test_x14_neither_token_nor_path_is_sent_or_said(pushed):
    folder, (_, out, err), _, bodies = pushed
    assert len(bodies) > 5
    for secret in (CANARY, str(folder), str(Path.home())):
        assert not [body for body in bodies if secret.encode() in body]
    assert CANARY not in out + err


NO_NAMES = ("../x", "a/b/c", "/etc", "a--b", "a..b", "me/name.git", "~/x", "a b", "-x", "a\\b", "")


@pytest.mark.parametrize("name", NO_NAMES)
def test_x9_what_is_no_name_of_a_repository_is_refused(name, online):
    with pytest.raises(RequestError, match="cannot be the name of a repository"):
        destination(name, public=False)


def _read_only(hub, patch):
    patch.setitem(hub.tokens, CANARY, {"auth": {"accessToken": {"role": "read"}}})


def _without_token(hub, patch):
    patch.delenv("HF_TOKEN")
    patch.setattr(constants, "HF_TOKEN_PATH", os.devnull)


REFUSALS = {
    "offline": (lambda hub, patch: patch.setattr(constants, "HF_HUB_OFFLINE", True), 3, "unset HF_HUB_OFFLINE"),
    "no hub": (
        lambda hub, patch: patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9"), 3, "the hub cannot be reached",
    ),
    "no token": (_without_token, 2, "no token of the hub is on this machine"),
    "unknown token": (lambda hub, patch: patch.setitem(hub.faults, "whoami", 401), 2, "does not know this machine's"),
    "hub broken": (lambda hub, patch: patch.setitem(hub.faults, "whoami", 500), 3, "it answers 500, you may not"),
    "read-only token": (_read_only, 2, "may not write to `me/x`"),
    "public already": (lambda hub, _: hub.repositories.update({"me/x": Repository(False)}), 2, "`me/x` is public"),
    "not writable": (
        lambda hub, _: (hub.repositories.update({"me/x": Repository(True)}), hub.faults.update({"auth-check": 403})),
        2, "may not write to `me/x`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_known_to_fail_is_said_before_any_work(case, online, monkeypatch):
    prepare, code, words = REFUSALS[case]
    prepare(online, monkeypatch)
    found, out, err = inlay("export", "run", "--to", "other", "--push", "x")
    assert (found, out) == (code, "")
    assert words in err
    assert len(err.splitlines()) == err.count("\nhelp: ") + err.count("\n  --> ") + 1
    assert CANARY not in err
    assert not Path("other").exists()
    assert not list(Path().glob(".other*"))


def test_the_same_is_said_to_a_program(online):
    with pytest.raises(RequestError, match="cannot be the name of a repository"):
        package.export("run", to="other", push="a b")
    with pytest.raises(RequestError, match="add --push REPO"):
        package.export("run", to="other", public=True)


def test_the_owner_is_the_tokens_or_an_organization_of_theirs(online):
    assert destination("x", public=False).repo == "me/x"
    assert destination("Team/x", public=True).repo == "Team/x"
    with pytest.raises(RequestError, match="`other` is neither me"):
        destination("other/x", public=False)
    with pytest.raises(RequestError, match="add --push REPO"):
        destination(None, public=True)


def test_a_repository_that_holds_something_keeps_it(online, capsys):
    old = {"README.md": b"of before", "notes.txt": b"precious", ".gitattributes": b""}
    online.repositories["me/x"] = Repository(True, dict(old), ["first"])
    where = destination("x", public=True)
    assert "me/x has 2 files: the export becomes a commit on top, nothing is deleted; it stays private" in (
        capsys.readouterr().err
    )
    told = push(Path("ship"), where)
    assert "also there, not of this export: notes.txt" in told
    assert online.repositories["me/x"].files == old | contents(Path("ship"))
    assert online.repositories["me/x"].private
    assert len(online.repositories["me/x"].commits) == 2


def test_public_is_what_was_asked_for(online):
    assert ", public; commit " in push(Path("ship"), destination("x", public=True))
    assert not online.repositories["me/x"].private


FAULTS = (("create", 401), ("create", 403), ("commit", 403), ("commit", 500), ("commit", 0))


@pytest.mark.parametrize(("part", "status"), FAULTS)
def test_an_upload_that_fails_leaves_the_export_and_says_how_to_go_on(part, status, online):
    before, where = contents(Path("ship")), destination("x", public=False)
    online.faults[part] = status
    with pytest.raises(MachineError, match="is whole, but its push failed: ") as failure:
        push(Path("ship"), where)
    assert contents(Path("ship")) == before
    assert CANARY not in str(failure.value)
    assert failure.value.exit_code == 3
    assert not any(repository.files for repository in online.repositories.values())
    command = _retry(failure.value)
    assert command == ["hf", "upload", "me/x", "ship", "--private"]
    online.faults.clear()
    if status == 0:  # the very command, once
        asked = {"HF_ENDPOINT": online.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        environment = {**os.environ, **asked}
        subprocess.run([sys.executable, "-m", "huggingface_hub.cli.hf", *command[1:]], env=environment, check=True)
        assert online.repositories["me/x"].private
        assert online.repositories["me/x"].files == before


def _retry(failure: Failure) -> list[str]:
    return shlex.split(failure.problems[0].help.removeprefix("to push it: "))


def test_an_upload_that_is_stopped_says_how_to_go_on(online):
    where = destination("x", public=False)
    online.at_commit = lambda: os.kill(os.getpid(), signal.SIGINT)
    online.faults["commit"] = 0
    said = r"is whole, but its push is not done\nhelp: to push it: hf upload me/x ship --private"
    with pytest.raises(Interrupted, match=said) as stop:
        push(Path("ship"), where)
    assert stop.value.exit_code == 130


def test_a_hub_that_holds_other_bytes_is_found_out(online):
    online.repositories["me/x"] = Repository(True, ignored=".safetensors")
    with pytest.raises(AnswerNo, match=r"lacks `model.safetensors`, so what is on the hub is not the export"):
        push(Path("ship"), destination("x", public=False))


def test_a_hub_that_lets_nothing_be_compared_is_not_believed(online):
    online.faults["paths-info"] = 503
    with pytest.raises(AnswerNo, match=r"commit [0-9a-f]{12} of `me/x` is there, but could not be compared .* 503"):
        push(Path("ship"), destination("x", public=False))


def test_the_same_export_again_is_no_commit(online):
    for _ in range(2):
        push(Path("ship"), destination("x", public=False))
    assert len(online.repositories["me/x"].commits) == 1
