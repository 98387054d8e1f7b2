"""The shape of the house: who may import whom, one doorway per library, files that are read in one sitting."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("adapters", "eval", "recipes", "tuner")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Rooms and files of `tuner` in the order in which the data passes; each calls only those that stand before it.
# `data.tasks` is the contract of a task, which a recipe names; the rest of `data` comes after the recipe.
ORDER = (
    ("problems",),
    ("signals", "console", "meter"),
    ("data.tasks", "shipped"),
    ("recipe",),
    ("records",),
    ("environment", "run_directory"),
    ("quantization",),
    ("model_files",),
    ("base_copies",),
    ("architecture", "weights"),
    ("base",),
    ("plain_weights",),
    ("adapter_folder",),
    ("saved",),
    ("data",),
    ("setting",),
    ("training",),
    ("benchmark",),
    ("forecast",),
    ("report",),
    ("preflight",),
    ("run",),
    ("check", "rescore"),
    ("comparison",),
    ("export",),
    ("serve",),
    ("listing", "doctor"),
    ("verbs", "api"),
    ("cli",),
    ("__main__",),
)

# library -> where it may be imported
DOORWAYS = {
    "bitsandbytes": ("tuner/base.py",),
    "peft": ("adapters/",),
    "datasets": ("tuner/data/", "eval/metrics/__init__.py", "tuner/console.py"),  # the console silences its bars
    "evaluate": ("eval/metrics/__init__.py",),
    "sacrebleu": ("eval/metrics/",),
    "rouge_score": ("eval/metrics/",),
    "huggingface_hub": ("tuner/data/hub.py", "tuner/model_files.py", "tuner/export/push.py"),
    "yaml": ("tuner/recipe/",),
    "jinja2": ("tuner/report/", "tuner/data/rendering.py"),
    "matplotlib": ("tuner/comparison/page/paper.py",),
    "rich": ("tuner/console.py", "tuner/report/terminal.py", "tuner/comparison/live.py"),
    "optuna": ("tuner/comparison/search.py",),
    "gguf": ("tuner/export/",),
    "fastapi": ("tuner/serve/server.py", "tuner/serve/completions.py"),
    "starlette": ("tuner/serve/server.py", "tuner/serve/completions.py"),
    "uvicorn": ("tuner/serve/server.py",),
    "argparse": ("tuner/verbs.py", "recipes/embedded/"),
}

HEAVY = {"torch", "transformers", "peft", "datasets", "evaluate", "numpy", "bitsandbytes", "sacrebleu", "rouge_score"}
HEAVY |= {"accelerate", "safetensors", "scipy", "sklearn", "trl", "huggingface_hub", "jinja2", "rich", "matplotlib"}

VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "tools"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Full names of what is imported; `from a import b` yields `a.b`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: not in functions, not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import(child)


def roots(names: Iterator[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_import_only_what_they_may(path):
    room = path.relative_to(ROOT).parts[0]
    allowed = None if room == "tuner" else f"inlay.{room}"
    ours = {name for name in imports(ast.walk(tree(path))) if name.split(".")[0] == "inlay"}
    if allowed:
        assert {name for name in ours if not f"{name}.".startswith(f"{allowed}.")} == set()
    assert not roots(imports(ast.walk(tree(path)))) & set(ROOMS), "the folders are imported under `inlay` only"


def rank(module: str) -> int | None:
    """The place of a tuner module in `ORDER`; `data.tasks` before `data`."""
    for place, names in enumerate(ORDER):
        if any(f"{module}.".startswith(f"{name}.") for name in names):
            return place
    return None


def modules_in_tuner() -> list[tuple[Path, str]]:
    found = []
    for path in FILES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "tuner" and parts[1:] != ("__init__",):
            found.append((path, ".".join(part for part in parts[1:] if part != "__init__")))
    return found


@pytest.mark.parametrize(("path", "module"), modules_in_tuner(), ids=[name for _, name in modules_in_tuner()])
def test_a_room_of_tuner_calls_only_rooms_before_it(path, module):
    here = rank(module)
    assert here is not None, f"{module} has no place in ORDER: say where the data passes through it"
    for name in imports(ast.walk(tree(path))):
        other = name.removeprefix("inlay.tuner.")
        if other == name or other == "__version__":
            continue
        place = rank(other)
        assert place is not None, f"{other} has no place in ORDER"
        own_room = module.split(".")[0] == other.split(".")[0]
        assert place < here or own_room, f"{module} calls {other}, which comes after it"


@pytest.mark.parametrize("library", DOORWAYS)
def test_one_doorway_per_library(library):
    users = [name_of(path) for path in FILES if library in roots(imports(ast.walk(tree(path))))]
    assert [user for user in users if not user.startswith(DOORWAYS[library])] == []


def is_light(path: Path) -> bool:
    """Whether the command line may import this file for `--help`, `ls`, `schema` or a recipe mistake."""
    name = name_of(path)
    if name.startswith("adapters/"):
        return not path.name.startswith("_") or path.name == "__init__.py"
    light = ("eval/__init__.py", "eval/metrics/", "tuner/data/tasks/", "tuner/data/__init__.py", "tuner/recipe/")
    light += (
        "tuner/__init__.py",
        "tuner/cli.py",
        "tuner/verbs.py",
        "tuner/listing.py",
        "tuner/doctor.py",
        "tuner/problems.py",
        "tuner/api/",
    )
    return name.startswith(light) or name == "recipes/__init__.py"


LIGHT = [path for path in FILES if is_light(path) and path.name != "layer.py"]


@pytest.mark.parametrize("path", LIGHT, ids=name_of)
def test_light_files_import_nothing_heavy(path):
    assert roots(imports(at_import(tree(path)))) & HEAVY == set()


def test_every_method_task_and_metric_really_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from inlay import adapters\n"
        "from inlay.eval import metrics\n"
        "from inlay.tuner.data import tasks\n"
        "for room in (adapters, metrics, tasks):\n"
        "    for name in room.names():\n"
        "        room.find(name)\n"
        f"print(sorted({HEAVY!r} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in VAGUE
    assert ast.get_docstring(tree(path)) or not tree(path).body, "a file says what it is for"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_functions_take_no_kwargs(path):
    """Functions and constructors; a method may override a library's that takes them."""
    functions = [node for node in tree(path).body if isinstance(node, ast.FunctionDef)]
    for owner in ast.walk(tree(path)):
        if isinstance(owner, ast.ClassDef):
            functions += [node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    private = [node for node in functions if node.name.startswith("_") and node.name != "__init__"]
    assert [node.name for node in functions if node.args.kwarg and node not in private] == []


UNSAFE_IMPORTS = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "evaluate.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system"}
UNSAFE_CALLS |= {
    "eval",
    "exec",
    "compile",
    "__import__",
    "datasets.load_dataset",
    "load_dataset",
    "numpy.load",
    "np.load",
}


# The scripts that made the embedded base read only what they wrote themselves, and no verb calls them.
EXPOSED = [path for path in FILES if not name_of(path).startswith("recipes/embedded/")]


@pytest.mark.parametrize("path", EXPOSED, ids=name_of)
def test_x1_x3_x12_nothing_runs_the_code_of_strangers(path):
    """No pickle, no `torch.load`, no metric or dataset script, no `trust_remote_code`, no shell."""
    assert roots(imports(ast.walk(tree(path)))) & UNSAFE_IMPORTS == set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in UNSAFE_CALLS, f"line {node.lineno}"
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                assert keyword.arg not in ("trust_remote_code", "shell") or value == "False", f"line {node.lineno}"
                assert keyword.arg != "weights_only" or value == "True", f"line {node.lineno}"
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            allowed = [ast.unparse(value) for key, value in pairs if key and ast.unparse(key) == "'trust_remote_code'"]
            assert set(allowed) <= {"False"}, f"line {node.lineno}"


def test_the_rules_see_what_they_forbid():
    """The checks above cannot pass by looking at nothing."""
    source = ast.parse("import torch\nif TYPE_CHECKING:\n    import numpy\ndef f():\n    from peft import x\n")
    assert roots(imports(at_import(source))) == {"torch"}
    assert roots(imports(ast.walk(source))) == {"torch", "numpy", "peft"}
    assert len(FILES) > 40
    assert len(LIGHT) > 20


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=name_of)
def test_text_is_utf8_and_ends_with_a_newline(path):
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n")
    assert "\r" not in text
