"""Where an export is made, by one process at a time, and what it reads for it: no training rows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
from tiny_runs import inlay

from inlay.tuner import setting
from inlay.tuner.export import source
from inlay.tuner.export.workplace import workplace
from inlay.tuner.problems import MachineError, RequestError
from inlay.tuner.recipe import load

COMMAND = [sys.executable, "-m", "inlay.tuner", "export", "run", "--to", "ship"]
PLACES = {".ship.lock", ".ship.partial", ".other.lock", ".other.partial"}
# Holds the place of an export to `ship` until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from inlay.tuner.export.workplace import workplace
with workplace(Path("ship")) as work:
    (work / "half").write_text("an export")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def trained(tiny_models, tmp_path_factory):
    """A folder with a run of a classification that took its labels from the training rows, which are gone."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_runs.world(folder, tiny_models("llama"))
        code, _, err = inlay("run", tiny_runs.recipe(folder, "lora", "classification").name, "--output", "run")
        assert code == 0, err
    (folder / "classification.jsonl").rename(folder / "moved.jsonl")
    return folder


@pytest.fixture
def inside(trained, tmp_path, monkeypatch):
    """A copy of that folder, as the current one."""
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "copy"))
    return Path()


@pytest.fixture
def holder(tmp_path, monkeypatch):
    """A process that exports to `ship`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_of_two_exports_to_one_target_one_is_made_without_its_training_rows(inside):
    both = [subprocess.Popen(COMMAND, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process: process.communicate() for process in both}
    made, refused = sorted(both, key=lambda process: process.returncode)
    assert (made.returncode, refused.returncode) == (0, 2), said
    assert f"process {made.pid} is exporting to `ship`" in said[refused][1]
    assert "merge" not in said[refused][1]
    assert json.loads(Path("ship/export.json").read_text())["proof"]["faults"] == []
    assert not list(inside.glob(".ship*"))


def test_who_exports_is_told_and_a_killed_one_is_in_nobodys_way(holder):
    with pytest.raises(RequestError, match=f"process {holder.pid} is exporting to `ship`"), workplace(Path("ship")):
        pass
    with workplace(Path("other")):
        assert {path.name for path in Path().iterdir()} == PLACES
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert Path(".ship.partial/half").is_file()
    with workplace(Path("ship")) as work:
        assert list(work.iterdir()) == []
    assert list(Path().iterdir()) == []


def test_many_that_follow_each_other_never_hold_it_at_once(tmp_path):
    """Each removes its lock file; who has opened that one has to look for the new one."""
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from inlay.tuner.export.workplace import workplace\n"
        "from inlay.tuner.problems import RequestError\n"
        "held = 0\n"
        "while held < 100:\n"
        "    try:\n"
        "        with workplace(Path('ship')) as work:\n"
        "            os.close(os.open(work / 'mine', os.O_CREAT | os.O_EXCL))\n"
        "            assert [path.name for path in work.iterdir()] == ['mine']\n"
        "            held += 1\n"
        "    except RequestError:\n"
        "        pass\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert list(tmp_path.iterdir()) == []


def test_x10_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / ".ship.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="cannot write to"), workplace(tmp_path / "ship"):
        pass
    (tmp_path / ".ship.lock").unlink()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("precious")
    (tmp_path / ".ship.partial").symlink_to(tmp_path / "folder")
    with workplace(tmp_path / "ship") as work:
        assert not work.is_symlink()
    assert (tmp_path / "elsewhere").read_text() == (tmp_path / "folder" / "mine").read_text() == "precious"


def test_parents_that_were_made_for_nothing_go_again(tmp_path):
    target = tmp_path / "a" / "b" / "ship"
    with workplace(target) as work:
        assert work.parent == target.parent
    assert list(tmp_path.iterdir()) == []
    with workplace(target) as work:
        work.rename(target)
    assert target.is_dir()


def test_an_export_reads_the_rows_that_were_measured_and_no_others(inside):
    found = source.from_run(Path("run")).setting
    assert found.data.training == ()
    assert set(found.data.record.rows) == {"test"}
    labels = [example.labels for example in found.data.examples["test"]]
    assert set(labels) == {("news", "sport", "weather")}
    with pytest.raises(RequestError, match=r"classification\.jsonl"):
        setting.survey(load("run/recipe.yaml", anywhere=True))


def test_without_them_nothing_that_needs_them_is_guessed(inside):
    recipe = load("run/recipe.yaml", ["train.max_steps=null", "task.data.train=moved.jsonl"], anywhere=True)
    found = setting.survey(recipe, train=False)
    assert found.data.training == ()
    with pytest.raises(AssertionError, match="training rows were left out"):
        _ = found.steps
    whole = setting.survey(recipe)
    assert whole.data.examples == found.data.examples
    assert whole.steps > 0


def test_a_runs_recipe_outlives_its_data_but_not_what_is_named_anew(inside):
    Path("classification-test.jsonl").unlink()
    recipe = load("run/recipe.yaml", anywhere=True)
    with pytest.raises(RequestError, match="no such file"):
        setting.survey(recipe, train=False)
    with pytest.raises(RequestError, match=r"there is no file `nowhere\.jsonl`"):
        load("run/recipe.yaml", ["task.data.test=nowhere.jsonl"], anywhere=True)
    with pytest.raises(RequestError, match=r"there is no file `classification\.jsonl`"):
        load("classification-lora.yaml")
