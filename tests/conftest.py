"""Every test runs offline: a connection or name look-up outside loopback fails the test that made it (hazard F23)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tiny
from forks import Forks

LOOPBACK = ("127.", "::1", "localhost")


def _refuse_network(event: str, arguments: tuple) -> None:
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to connect to {address}")
    elif event == "socket.getaddrinfo" and arguments[0] not in (None, "localhost", "127.0.0.1", "::1"):
        raise AssertionError(f"a test tried to look up {arguments[0]}")


sys.addaudithook(_refuse_network)


def pytest_configure(config: pytest.Config) -> None:
    """All tests but those in tests/gpu compare numbers of the CPU, so they do not see a GPU that is there."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """A function (shape, **options of tiny.save) -> folder of that model; each is written once a session."""
    made: dict[tuple, Path] = {}

    def make(shape: str, *, tied: bool = False, seed: int = 0) -> Path:
        key = (shape, tied, seed)
        if key not in made:
            made[key] = tiny.save(tmp_path_factory.mktemp(shape), shape, tied=tied, seed=seed)
        return made[key]

    return make


@pytest.fixture
def inside(world, tmp_path, monkeypatch) -> Path:
    """A copy of the folder that a file of tests calls `world`, as the current one."""
    folder = shutil.copytree(world, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def forks():
    made: list[Forks] = []

    def run(command, **options):
        if not made:
            made.append(Forks())
        return made[0].run(command, **options)

    yield run
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def _forked(request, forks, monkeypatch) -> None:
    """What checks an export is forked, which is quicker, but for tests that are marked `fresh`."""
    if "fresh" not in request.keywords:
        monkeypatch.setattr("inlay.tuner.export.fresh_process.subprocess", SimpleNamespace(run=forks))


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real small pretrained models beside the project; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "models"
    if not folder.is_dir():
        pytest.skip(f"no real models at {folder.name}: this test needs tinytalk-3m beside the project")
    return folder
