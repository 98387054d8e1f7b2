"""The command line: what goes to stdout and stderr, exit codes, and how fast the light verbs answer."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
import types
from importlib import metadata

import pytest

import inlay
from inlay import adapters
from inlay.eval import metrics
from inlay.tuner import cli, doctor, recipe
from inlay.tuner.data import tasks
from inlay.tuner.problems import AnswerNo, Interrupted, MachineError, RequestError

HEAVY = ["torch", "transformers", "numpy", "peft", "datasets", "evaluate", "rich", "jinja2", "huggingface_hub"]
WRONG = "name: x\nbase: {modle: gpt2}\nadapter: {method: lora, lora_rank: 3}\ntask: {type: summarization}\n"


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text(WRONG)
    return tmp_path


@pytest.fixture
def call(inside, capsys):
    """A function (arguments) -> exit code, stdout, stderr of the command line in an empty folder."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def verb(monkeypatch):
    """A function that puts another function in the place of the heavy `inlay.tuner.run.run`."""

    def put(does) -> None:
        module = types.ModuleType("inlay.tuner.run")
        module.run = does
        monkeypatch.setitem(sys.modules, "inlay.tuner.run", module)

    return put


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help"), ("--version",), ("ls",), ("schema",)])
def test_answers_go_to_stdout(call, arguments):
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rnu", "quickstart"), "did you mean `inlay run`?"),
        (("wrong.yaml",), "did you mean `inlay run wrong.yaml`?"),
        (("frobnicate",), "one of run, check, eval, compare, export, chat, generate, serve, report, ls"),
        (("run",), "RECIPE"),
        (("run", "quickstrat"), "did you mean `quickstart`?"),
        (("run", "quickstart", "--outptu", "x"), "--outptu"),
        (("run", "quickstart", "--set", "train.max_step=3"), "did you mean `max_steps`?"),
        (("run", "."), "a folder"),
        (("run", "a" * 5000), "name too long"),
        (("ls", "method"), "methods"),
        (("init", "sumarization"), "did you mean `summarization`?"),
        (("init", "--output", "no/such/folder.yaml"), "No such file"),
        (("report", "nothing"), "inlay ls runs"),
        (("eval", "gpt2", "--set", "seed=1"), "--recipe"),
    ],
)
def test_a_wrong_request_ends_with_2_and_says_what_to_do(call, arguments, words):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert words in err
    assert "Traceback" not in err


def test_all_mistakes_of_a_recipe_are_told(call):
    code, out, err = call("run", "wrong.yaml")
    assert (code, out) == (2, "")
    assert "--> wrong.yaml:2:8 (base.modle)" in err
    assert "here it is `adapter.r`" in err
    assert "`task.data` is missing" in err
    assert "note: 3 problems in all" in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (AnswerNo("training diverged at step 7"), 1, "diverged"),
        (RequestError("the data are wrong"), 2, "the data are wrong"),
        (MachineError("out of memory", help="halve micro_batch_size"), 3, "halve"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), 3, 'pip install --force-reinstall "peft>='),
        (ModuleNotFoundError("No module named 'rouge_score.x'", name="rouge_score.x"), 3, "rouge-score"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "the disk is full"),
        (Interrupted("stopped after step 3"), 130, "after step 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("division by zero"), 4, "inlay broke: ZeroDivisionError: division by zero"),
        (ModuleNotFoundError("No module named 'inlay.x'", name="inlay.x"), 4, "inlay broke"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_codes(call, verb, error, code, words):
    def fails(*arguments, **options):
        raise error

    verb(fails)
    found, out, err = call("run", "quickstart")
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("where", [("--debug", "run", "quickstart"), ("run", "quickstart", "--debug")])
def test_debug_shows_the_traceback(call, verb, where):
    def fails(*arguments, **options):
        raise ZeroDivisionError

    verb(fails)
    code, _, err = call(*where)
    assert code == 4
    assert "Traceback" in err


def test_run_hands_over_what_was_asked(call, verb, inside, monkeypatch):
    seen = {}

    def takes(loaded, **options):
        seen.update(options, recipe=loaded)
        return inside

    verb(takes)
    monkeypatch.setattr("inlay.tuner.report.terminal.print_table", lambda run: print(f"the table of {run}"))
    code, out, _ = call("run", "quickstart", "--set", "seed=7", "--set", "name=a b".replace(" ", "-"), "--again")
    assert (code, out) == (0, f"the table of {inside}\n")
    assert (seen["recipe"].seed, seen["recipe"].name) == (7, "a-b")
    assert (seen["output"], seen["again"]) == (None, True)
    assert seen["command"] == "inlay run quickstart --set seed=7 --set name=a-b --again"


def test_ls_names_everything_there_is(call):
    _, out, _ = call("ls")
    for name in [*adapters.names(), *tasks.names(), *metrics.names(), *(shipped.name for shipped in recipe.shipped())]:
        assert f"  {name} " in out, name


def test_ls_runs_tells_every_run(call, inside):
    scores = {"rouge1": {"value": 31.25}}
    good = {
        "status": "complete",
        "reason": "",
        "created": "2020-01-02T03:04:05+00:00",
        "metrics": {"tuned": scores, "base": scores, "change": {"rouge1": {"verdict": "better"}}},
    }
    failed = {**good, "status": "failed", "reason": "diverged at step 3\x1b[31m\nmore", "metrics": None}
    for name, text in {"good": json.dumps(good), "failed": json.dumps(failed), "broken": "{", "odd": "[]"}.items():
        (inside / "runs" / name).mkdir(parents=True)
        (inside / "runs" / name / "run.json").write_text(text)
    (inside / "runs" / "good" / "weights").write_bytes(b"x" * 2_000_000)
    code, out, err = call("ls", "runs")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert (code, err) == (0, "")
    assert "complete" in rows["good"]
    assert "rouge1 31.25 better" in rows["good"]
    assert rows["good"].endswith("2 MB")
    assert " d " in rows["good"]
    assert "failed: diverged at step 3" in rows["failed"]
    assert "\x1b" not in out
    assert "unreadable" in rows["broken"]
    assert "unreadable" in rows["odd"]
    code, _, err = call("report", "goood")
    assert code == 2
    assert "did you mean `good`?" in err


@pytest.mark.parametrize("task", tasks.names())
def test_init_writes_a_recipe_that_loads_and_never_overwrites(call, inside, task):
    code, out, _ = call("init", task)
    assert code == 0
    assert out == f"wrote {task}.yaml\nnext  inlay run {task}.yaml\n"
    assert recipe.load(f"{task}.yaml").task.type == task
    before = (inside / f"{task}.yaml").read_bytes()
    code, _, err = call("init", task)
    assert code == 2
    assert "exists already" in err
    assert (inside / f"{task}.yaml").read_bytes() == before


def test_schema_knows_every_method_task_and_metric(call):
    schema = json.loads(call("schema")[1])
    definitions = schema["$defs"]
    methods = {option["properties"]["method"]["const"]: option for option in definitions["Adapter"]["oneOf"]}
    assert sorted(methods) == adapters.names()
    assert methods["lora"]["properties"]["r"]["description"]
    assert methods["lora"]["additionalProperties"] is False
    assert definitions["Task"]["properties"]["type"]["enum"] == tasks.names()
    assert definitions["Eval"]["properties"]["metrics"]["anyOf"][0]["items"]["enum"] == metrics.names()
    text = json.dumps(schema)
    for reference in set(text.split('"#/$defs/')[1:]):
        assert reference.partition('"')[0] in definitions


def test_doctor_says_what_works(call):
    code, out, err = call("doctor")
    assert (code, err) == (0, "")
    assert f"inlay {inlay.__version__}" in out
    assert f"torch {metadata.version('torch')}" in out
    for group in doctor.GROUPS:
        assert group.purpose in out


@pytest.mark.parametrize(
    ("library", "version", "code", "words"),
    [
        ("peft", None, 3, 'pip install "peft>='),
        ("torch", "2.6.0", 3, "torch 2.6.0 (wrong version)"),
        ("torch", "2.14.0+cu130", 3, "(wrong version)"),
        ("torch", "2.11.0+cpu", 0, "torch 2.11.0+cpu"),
        ("wandb", None, 0, 'pip install "inlay[wandb]"'),
    ],
)
def test_x20_doctor_flags_what_is_missing_or_old(call, monkeypatch, library, version, code, words):
    real = metadata.version

    def pretend(name: str) -> str:
        if name != library:
            return real(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", pretend)
    found, out, _ = call("doctor")
    assert found == code
    assert words in out


def test_f19_a_missing_library_is_told_with_its_install_line(call, verb, monkeypatch):
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    def fails(*arguments, **options):
        raise ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes")

    verb(fails)
    monkeypatch.setattr(metadata, "version", version)
    code, _, err = call("run", "quickstart")
    assert code == 3
    assert err.startswith('error: bitsandbytes is not installed\nhelp: pip install "bitsandbytes>=')


LIGHT = [["--help"], ["--version"], ["ls"], ["ls", "runs"], ["schema"], ["run", "wrong.yaml"], ["init", "dialogue"]]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_verbs_import_nothing_heavy(inside, arguments):
    script = (
        "import sys\n"
        "from inlay.tuner.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        f"    print('heavy:', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "heavy: []"


def test_light_verbs_answer_at_once(inside):
    """In processor time, which a busy machine distorts less: 0.3 s, or some times what pydantic and PyYAML take."""

    def seconds(*command: str, code: int = 0) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == code, done.stderr
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    libraries = "import yaml, pydantic; from pydantic import BaseModel, Field, model_validator"
    alone = max(seconds("-c", libraries) for _ in range(3))
    for arguments, code in ((["--help"], 0), (["ls"], 0), (["schema"], 0), (["run", "wrong.yaml"], 2)):
        took = min(seconds("-m", "inlay.tuner", *arguments, code=code) for _ in range(3))
        print(f"inlay {' '.join(arguments)}: {took:.3f} s (its libraries alone: {alone:.3f} s)")
        assert took < max(0.3, 4 * alone)


def test_a_closed_pipe_is_no_mistake(inside):
    command = f"{sys.executable} -m inlay.tuner schema | head -c 10"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_python_verbs_are_light_and_shadow_no_package():
    script = f"import sys, inlay; print([name for name in {[*HEAVY, 'pydantic']!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    assert not {"adapters", "eval", "recipes", "tuner"} & set(inlay.__all__)
    assert all(callable(getattr(inlay, name)) and getattr(inlay, name).__doc__ for name in inlay.__all__)


def test_the_python_verbs_take_a_recipe_by_name_or_loaded(verb, inside):
    seen = []

    def takes(loaded, **options):
        seen.append((loaded.seed, options["output"]))
        return inside

    verb(takes)
    assert inlay.run("quickstart", overrides=["seed=3"], output="somewhere") == inside
    inlay.run(inlay.load_recipe("quickstart", ["seed=4"]))
    assert seen == [(3, inside.__class__("somewhere")), (4, None)]
    with pytest.raises(TypeError, match="loaded already"):
        inlay.run(inlay.load_recipe("quickstart"), overrides=["seed=4"])
