"""What is installed: a wheel of what is committed, in an environment of its own, used from an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import pytest

from inlay import __version__
from inlay.tuner import doctor

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def call(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_folder_with_code_is_listed_as_a_package():
    mounted = PROJECT["tool"]["setuptools"]["package-dir"]
    folders = {"inlay": ROOT / "tuner" / "api"}
    for name in ("adapters", "eval", "recipes", "tuner"):
        for marker in (ROOT / name).rglob("__init__.py"):
            folder = marker.parent
            folders[".".join(["inlay", *folder.relative_to(ROOT).parts])] = folder
    del folders["inlay.tuner.api"]
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(folders)
    assert all((ROOT / folder).is_dir() for folder in mounted.values())


def test_every_data_file_is_listed_as_package_data():
    """Every committed file below the packages that is no code is carried by a pattern of `package-data`."""
    listed = call("/usr/bin/env", "git", "ls-files", "adapters", "eval", "recipes", "tuner", cwd=ROOT).splitlines()
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    carried = set()
    for package, globs in patterns.items():
        folder = Path(*package.split(".")[1:])
        for pattern in globs:
            carried |= {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern)}
    kinds = (".yaml", ".jsonl", ".html", ".css", ".js", ".svg", ".json", ".safetensors", ".txt")
    missing = [name for name in listed if name.endswith(kinds) and name not in carried]
    assert missing == []


def test_versions_agree():
    assert PROJECT["project"]["version"] == __version__


def test_x20_doctor_asks_for_the_versions_that_the_package_asks_for():
    wanted = {}
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in [
        *PROJECT["project"]["dependencies"],
        *extras["gguf"],
        *extras["tensorboard"],
        *extras["wandb"],
        *extras["trackio"],
        *extras["serve"],
    ]:
        name, versions = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        wanted[name] = versions
    known = {
        library.name: library.versions for group in doctor.GROUPS for library in group.libraries if library.versions
    }
    assert known == wanted
    assert {group.extra for group in doctor.GROUPS if group.extra} <= extras.keys()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """An environment with the wheel of HEAD in it, and this one's libraries."""
    try:
        setuptools = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        setuptools = "0"
    if int(setuptools.split(".")[0]) < 77:
        pytest.skip(f"building needs setuptools 77 or newer in this environment; it has {setuptools}")
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout, so there is no commit to build from")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    archive = folder / "source.tar"
    call("/usr/bin/env", "git", "archive", "--output", archive, "HEAD", cwd=ROOT)
    with tarfile.open(archive) as packed:
        packed.extractall(source, filter="data")
    pip = (sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input")
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    (libraries,) = (folder / "env" / "lib").glob("python*/site-packages")
    call(*pip, "install", "--no-deps", "--no-index", "--target", libraries, wheel, cwd=folder)
    here = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (libraries / "of_the_tests.pth").write_text("".join(f"{path}\n" for path in here))
    return folder / "env"


def inlay(environment: Path, *arguments: str, cwd: Path) -> str:
    return call(environment / "bin" / "python", "-m", "inlay.tuner", *arguments, cwd=cwd)


def test_the_wheel_answers_from_an_empty_folder(installed, tmp_path):
    assert inlay(installed, "--version", cwd=tmp_path) == f"inlay {__version__}\n"
    recipes = inlay(installed, "ls", "recipes", cwd=tmp_path)
    committed = call("/usr/bin/env", "git", "ls-tree", "--name-only", "HEAD", "recipes/", cwd=ROOT).splitlines()
    shipped = [Path(name).stem for name in committed if name.endswith(".yaml")]
    assert sorted(line.split()[0] for line in recipes.splitlines()) == sorted(shipped)
    assert inlay(installed, "schema", cwd=tmp_path).startswith("{")


def test_the_wheel_is_what_is_imported(installed, tmp_path):
    script = "import inlay, inlay.adapters, inlay.eval, inlay.recipes; print(inlay.__file__, inlay.eval.__file__)"
    found = call(installed / "bin" / "python", "-c", script, cwd=tmp_path)
    assert all(path.startswith(str(installed)) for path in found.split())


def test_the_wheel_brings_no_top_level_name_but_inlay(installed):
    (libraries,) = (installed / "lib").glob("python*/site-packages")
    top = {
        path.name for path in libraries.iterdir() if path.suffix not in (".pth", ".dist-info") and path.name != "bin"
    }
    assert top == {"inlay"}


def test_the_script_starts_the_command_line():
    module, _, function = PROJECT["project"]["scripts"]["inlay"].partition(":")
    assert (module, function) == ("inlay.tuner.cli", "main")
