"""How a recipe is read: YAML 1.2 scalars, hostile files, what is filled in, and what is written back."""

from __future__ import annotations

import random
import string
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from inlay import adapters
from inlay.tuner import recipe
from inlay.tuner.data import tasks
from inlay.tuner.problems import RequestError
from inlay.tuner.recipe import yaml
from inlay.tuner.recipe.loader import parse

SMALL = """\
name: small
base: {model: embedded}
adapter: {method: lora, r: 4}
task: {type: summarization, data: embedded}
train: {max_steps: 3}
"""


def value_of(text: str):
    document = yaml.read(f"key: {text}\n".encode(), "test.yaml")
    assert not document.problems, document.problems
    return document.value["key"]


# The meaning of each is that of YAML 1.2.2, section 10.3.2 (core schema); YAML 1.1 reads most of them otherwise.
GOTCHAS = [
    ("1e-4", 1e-4),
    ("2E-4", 2e-4),
    ("1e3", 1000.0),
    ("+12e03", 12000.0),
    (".5", 0.5),
    ("5.", 5.0),
    ("-0.0", -0.0),
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("Off", "Off"),
    ("y", "y"),
    ("N", "N"),
    ("true", True),
    ("FALSE", False),
    ("tRUE", "tRUE"),
    ("012", 12),
    ("0o14", 12),
    ("0x1F", 31),
    ("0b11", "0b11"),
    ("12:30", "12:30"),
    ("190:20:30.15", "190:20:30.15"),
    ("1_000", "1_000"),
    ("1,000", "1,000"),
    ("2024-01-02", "2024-01-02"),
    ("~", None),
    ("null", None),
    ("", None),
    ("nULL", "nULL"),
    ("None", "None"),
    ("=", "="),
    ('"1e-4"', "1e-4"),
    ("'true'", "true"),
    ('""', ""),
    ("[no, 1e-1, 07]", ["no", 0.1, 7]),
    ("{no: off, 0: 1}", {"no": "off", "0": 1}),
]


@pytest.mark.parametrize(("text", "expected"), GOTCHAS, ids=[text or "empty" for text, _ in GOTCHAS])
def test_s42_yaml_gotchas(text, expected):
    found = value_of(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("written", ["2e-4", "0.0002", "2.0E-04", ".0002"])
def test_s42_a_learning_rate_is_a_number_however_it_is_written(written):
    loaded = parse(SMALL.replace("max_steps: 3", f"learning_rate: {written}").encode(), "r.yaml", Path("."))
    assert loaded.train.learning_rate == 2e-4


def test_s42_a_class_called_no_keeps_its_name():
    text = SMALL.replace("summarization, data: embedded", "classification, data: embedded, labels: {no: off, yes: on}")
    assert parse(text.encode(), "r.yaml", Path(".")).task.labels == {"no": "off", "yes": "on"}


# text, line and column of the mistake, a word of the message
HOSTILE = {
    "tag": (b"a: !!python/object/apply:os.system ['id']", 1, 4, "tags"),
    "local tag": (b"a: 1\nb: !x 2", 2, 4, "tags"),
    "non-specific tag": (b"a: ! 2", 1, 4, "tags"),
    "anchor": (b"a: &x 1", 1, 4, "anchors"),
    "alias": (b"a: &x 1\nb: *x", 2, 4, "aliases"),
    "alias as key": (b"a: &x 1\n*x : 2", 2, 1, "a key is text"),
    "merge key": (b"a: 1\n<<: {b: 2}", 2, 1, "merge keys"),
    "duplicate key": (b"a: 1\nb: 2\na: 3", 3, 1, "twice (first on line 1)"),
    "duplicate key, nested": (b"a:\n  b: 1\n  'b': 3", 3, 3, "twice (first on line 2)"),
    "list as key": (b"? [a]\n: 1", 1, 3, "a key is text"),
    "empty key": (b'a: 1\n"": 2', 2, 1, "a key is missing"),
    "two documents": (b"a: 1\n---\nb: 2", 2, 1, "second document"),
    "directive": (b"%TAG ! tag:x,2000:\n---\na: 1", 1, 1, "directives"),
    "flow depth": (b"a: " + b"[" * 5000, 1, 23, "nested more than 20"),
    "block depth": (b"".join(b" " * n + b"a:\n" for n in range(400)), 21, 21, "nested more than 20"),
    "tab": (b"a:\n\tb: 1", 2, 1, "tab"),
    "NUL": (b"a: 1\nb: \x00", 2, 4, "U+0000"),
    "escape character": (b"a: \x1b[31mred", 1, 4, "U+001B"),
    "escaped escape character": (b'a: "\\e[31m"', 1, 4, "U+001B"),
    "escaped surrogate": (b'a: "\\ud800"', 1, 4, "U+D800"),
    "not UTF-8": (b"a: 1\nb: x\xff", 2, 5, "not UTF-8"),
    "UTF-16": ("a: 1".encode("utf-16"), 1, 1, "not UTF-8"),
    "unclosed quote": (b"a: 'x", 1, 6, "end of stream"),
    "unclosed bracket": (b"a: [1, 2", 1, 9, "expected ',' or ']'"),
    "colon in text": (b"a: b: c", 1, 5, "mapping values"),
    "a list": (b"- a\n- b", 1, 1, "block of `key: value`"),
    "one word": (b"recipe", 1, 1, "block of `key: value`"),
    "only a comment": (b"# nothing\n", 0, 0, "empty"),
    "infinite": (b"a: .inf", 1, 4, "not a finite"),
    "overflow": (b"a: 1e999", 1, 4, "not a finite"),
    "endless number": (b"a: " + b"9" * 5000, 1, 4, "at most 64"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_x7_yaml_hostile(case):
    text, line, column, word = HOSTILE[case]
    problem = yaml.read(text, "evil.yaml").problems[-1]
    assert (problem.file, problem.line, problem.column) == ("evil.yaml", line, column)
    assert word in problem.message


def test_x7_alias_bomb_never_grows():
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    document = yaml.read(bomb.encode(), "bomb.yaml")
    assert document.value["a29"] == [None, None]
    assert len(document.problems) == 30 + 2 * 29


LARGE = {
    "list": "key: [" + "x," * 120_000 + "]",
    "keys": "".join(f"k{n}: 1\n" for n in range(20_000)),
    "duplicates": "a: 1\n" * 50_000,
    "aliases": "a: [&a 1, " + "*a, " * 60_000 + "]",
    "wrong metrics": SMALL + "eval: {metrics: [" + "x," * 4_000 + "]}",
    "wrong items": SMALL.replace("max_steps: 3", "report_to: [" + "x," * 4_000 + "]"),
    "wrong columns": SMALL.replace(
        "embedded}\ntr", "embedded, columns: {" + "".join(f"k{n}: x," for n in range(2000)) + "}}\ntr"
    ),
    "blank lines": "\n" * 200_000,
    "one text": "a: '" + "x" * 200_000 + "'",
}


@pytest.mark.parametrize("case", LARGE)
def test_x7_large_files_are_answered_soon(case):
    start = time.process_time()
    with pytest.raises(RequestError) as caught:
        parse(LARGE[case].encode(), "large.yaml", Path("."))
    assert time.process_time() - start < 3  # a second on an idle machine
    assert len(caught.value.problems) <= 2 * yaml.MAX_PROBLEMS
    assert len(str(caught.value)) < 200_000


def test_x7_file_over_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_bytes(b"a: 1 #" + b"x" * yaml.MAX_BYTES)
    with pytest.raises(RequestError, match="at most 262,144"):
        recipe.load(path)


def test_x7_direction_marks_do_not_reach_the_terminal():
    problem = yaml.read("a: 1\na: '\u202e'\n".encode(), "r.yaml").problems[0]
    assert "\u202e" not in str(problem)


def test_x7_mutated_recipes_load_or_are_explained():
    """Random damage to a good recipe ends in a recipe or in problems with a place, never in another exception."""
    source = random.Random(0)
    good = recipe.starter("summarization", "r.yaml")
    pieces = [*string.punctuation, "\n", "  ", "\t", "null", "1e9", "[", "{a: ", "- ", "é", "\u2028", "*a", "!x ", "-1"]
    for _ in range(250):
        text = good
        for _ in range(source.randint(1, 4)):
            start = source.randrange(len(text))
            text = text[:start] + source.choice(pieces) + text[start + source.randint(0, 12) :]
        problems = ()
        try:
            parse(text.encode(), "r.yaml", Path("."))
        except RequestError as error:
            problems = error.problems
        assert all(problem.message and problem.file == "r.yaml" for problem in problems)


def leaves(model: type[BaseModel], prefix: str = ""):
    """Every field that holds a value, with its dotted path."""
    for name, field in model.model_fields.items():
        inner = [part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if is_block(part)]
        if inner:
            yield from leaves(inner[0], f"{prefix}{name}.")
        elif f"{prefix}{name}" != "adapter.options":
            yield f"{prefix}{name}", field


def is_block(part: object) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel) and not issubclass(part, adapters.Options)


FIELDS = dict(leaves(recipe.Recipe))


@pytest.mark.parametrize("path", FIELDS)
def test_f10_every_field_is_marked_and_described(path):
    field = FIELDS[path]
    assert field.json_schema_extra["resume"] in ("safe", "semantic")
    assert field.description


def test_f10_every_adapter_option_is_marked():
    for method in recipe.schema()["$defs"]["Adapter"]["oneOf"]:
        marks = {name: option.get("resume") for name, option in method["properties"].items()}
        assert set(marks.values()) == {"semantic"}, marks


@pytest.mark.parametrize("shipped", recipe.shipped(), ids=lambda shipped: shipped.name)
def test_shipped_recipes_load_and_say_what_they_are(shipped):
    assert recipe.load(shipped.name).name == shipped.name
    header = [line for line in shipped.path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert len(header) >= 3
    assert f"inlay run {shipped.name}" in header[2]


@pytest.mark.parametrize("task", tasks.names())
def test_starter_recipe_loads_and_names_every_field(task, tmp_path):
    text = recipe.starter(task, "mine.yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = recipe.load(path)
    assert loaded.task.type == task
    elsewhere = {"task.data.embedded", "task.prompt", "task.labels", "eval.turns", "eval.stride"}  # not of every task
    if tasks.find(task).answers == "read":
        elsewhere |= {dotted for dotted in FIELDS if dotted.startswith("eval.decoding.")}
        elsewhere |= {"train.loss_on", "task.truncate", "eval.few_shot"}
    for dotted in FIELDS.keys() - elsewhere:
        assert f" {dotted.rpartition('.')[2]}:" in text or f"\n{dotted}:" in text, dotted


@pytest.mark.parametrize("task", tasks.names())
def test_starter_recipe_shows_the_defaults(task):
    """What the starter sets equals what a recipe without those lines gets, but for what makes it small and quick."""
    chosen = ["train.max_steps=120", "train.micro_batch_size=16"]
    bare = SMALL.replace("summarization", task).replace("name: small", f"name: my-{task}").replace(", r: 4", "")
    expected = parse(bare.encode(), "r.yaml", Path("."), chosen)
    assert parse(recipe.starter(task, "r.yaml").encode(), "r.yaml", Path(".")) == expected


def test_starter_recipe_examples_are_valid(tmp_path):
    """What is commented out can be put in force, all of it that goes together."""
    (tmp_path / "runs" / "NAME").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("{}\n")
    lines = []
    for line in recipe.starter("classification", "r.yaml").splitlines():
        name = line.replace("#", "").strip().partition(":")[0]
        if name not in ("revision", "hub", "config") and line.partition(":")[0] not in ("  data", "  max_steps"):
            lines.append(line.replace("# ", "", 1) if line.startswith("  # ") else line)
    loaded = parse("\n".join(lines).encode(), "r.yaml", tmp_path)
    assert loaded.train.early_stopping_patience == 3
    assert loaded.task.data.test == str(tmp_path / "test.jsonl")
    assert loaded.task.data.max_rows.train == 2000


@pytest.mark.parametrize("name", ["quickstart", "dialogue-embedded-lora", "classification-embedded-lora"])
def test_resolved_recipe_reads_back_as_itself(name):
    first = recipe.load(name, ["base.quantization.compute_dtype=fp32", "train.warmup_ratio=1e-3"])
    again = parse(recipe.resolved_yaml(first).encode(), "recipe.yaml", Path("."))
    assert again == first
    assert recipe.recipe_hash(again) == recipe.recipe_hash(first)


@pytest.mark.parametrize("text", ["1e-4", "012", "0o17", "no", "~", "12:30", "0x1f", "true", ".inf", "a: b", "9" * 70])
def test_resolved_text_stays_text(text):
    labels = f"{{'a': {text!r}}}"
    source = SMALL.replace("summarization, data: embedded", f"classification, data: embedded, labels: {labels}")
    written = recipe.resolved_yaml(parse(source.encode(), "r.yaml", Path(".")))
    assert parse(written.encode(), "r.yaml", Path(".")).task.labels == {"a": text}


def test_paths_are_absolute_in_the_recipe_and_relative_in_its_text(tmp_path, monkeypatch):
    folder = tmp_path / "project" / "recipes"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("{}\n")
    text = SMALL.replace("data: embedded", "data: {train: rows.jsonl, draw: {test: 0.1}}")
    (folder / "r.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "project")
    loaded = recipe.load("recipes/r.yaml")
    assert loaded.task.data.train == str(folder / "rows.jsonl")
    assert loaded.written("task.data.train") == "rows.jsonl"
    written = recipe.resolved_yaml(loaded)
    assert "train: recipes/rows.jsonl" in written
    assert str(tmp_path) not in written
    run = tmp_path / "project" / "runs" / "small"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(written)
    assert recipe.load("runs/small/recipe.yaml").task.data.train == loaded.task.data.train


def test_hash_is_the_same_on_every_machine_and_moves_with_every_field(tmp_path, monkeypatch):
    hashes = []
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "rows.jsonl").write_text("{}\n")
        monkeypatch.chdir(folder)
        text = SMALL.replace("data: embedded", "data: {train: rows.jsonl, draw: {test: 0.1}}")
        hashes.append(recipe.recipe_hash(parse(text.encode(), "r.yaml", folder)))
    assert hashes[0] == hashes[1]
    edits = ["seed=1", "adapter.r=5", "train.max_steps=4", "eval.decoding.max_new_tokens=9", "name=other"]
    changed = [recipe.recipe_hash(parse(SMALL.encode(), "r.yaml", Path("."), [edit])) for edit in edits]
    assert len({*changed, recipe.recipe_hash(parse(SMALL.encode(), "r.yaml", Path(".")))}) == len(edits) + 1


def test_epochs_are_filled_in_only_without_steps():
    assert parse(SMALL.encode(), "r.yaml", Path(".")).train.epochs is None
    assert parse(SMALL.replace("max_steps: 3", "").encode(), "r.yaml", Path(".")).train.epochs == 1.0


def test_empty_blocks_are_blocks_of_defaults():
    text = SMALL.replace("train: {max_steps: 3}", "train:\n  # max_steps: 3\neval:\n")
    assert parse(text.encode(), "r.yaml", Path(".")).eval == recipe.Eval()


def test_a_recipe_cannot_be_changed_after_loading():
    loaded = parse(SMALL.encode(), "r.yaml", Path("."))
    with pytest.raises(ValueError, match="frozen"):
        loaded.train.max_steps = 7
