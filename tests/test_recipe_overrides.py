"""What `--set` may change, which numbers are absurd, and which files a recipe may name (hazards X9, X15, X16)."""

from __future__ import annotations

import json

import pytest
from wrong_recipes import GOOD, mistakes

from inlay.tuner.recipe.loader import parse


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.max_steps=x", "expected a whole number"),
        ("train.max_step=3", "did you mean `max_steps`?"),
        ("adapter.lora_rank=3", "here it is `adapter.r`"),
        ("seed.x=3", "`seed` is not a block"),
        ("train", "`dotted.path=value`"),
        ("=3", "`dotted.path=value`"),
        ("a..b=3", "`dotted.path=value`"),
        ("eval.metrics=[rouge", "cannot be read"),
        ("train.learning_rate=.nan", "not a finite number"),
        ("base.trust_remote_code=true", "cannot allow code to run"),
        ("name=\x1b[31m", "U+001B"),
        ("name=\udcff", "U+DCFF"),
    ],
)
def test_override_mistakes_point_at_the_override(override, words, tmp_path):
    (problem,) = mistakes(GOOD, tmp_path, (override,))
    assert problem.file.startswith("--set ")
    assert override.partition("=")[0] in problem.file
    assert problem.file.isprintable()
    assert words in f"{problem.message}\n{problem.note}\n{problem.help}"


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("train.learning_rate=1e-4", "train.learning_rate", 1e-4),
        ("eval.metrics=[rouge, bleu]", "eval.metrics", ["rouge", "bleu"]),
        ("task.prompt=Say {document} no: 1", "task.prompt", "Say {document} no: 1"),
        ("task.data.max_rows.train=7", "task.data.max_rows.train", 7),
        ("adapter.target_modules=[q_proj]", "adapter.options.target_modules", ("q_proj",)),
        ("eval={split: validation}", "eval.split", "validation"),
        ("train.max_steps=null", "train.epochs", 1.0),
        ("name='12'", "name", "12"),
    ],
)
def test_overrides_win(override, path, expected, tmp_path):
    value: object = parse(GOOD.encode(), "good.yaml", tmp_path, (override,))
    for part in path.split("."):
        value = getattr(value, part)
    assert value == expected


def test_an_override_repairs_the_file(tmp_path):
    text = GOOD.replace("max_steps: 5", "max_steps: five")
    assert parse(text.encode(), "wrong.yaml", tmp_path, ("train.max_steps=5",)).train.max_steps == 5


ABSURD = [
    "seed=-1",
    "seed=1e99",
    "seed=99999999999999999999999",
    "train.epochs=1e9",
    "train.epochs=0",
    "train.max_steps=0",
    "train.max_steps=1000000000000",
    "train.micro_batch_size=1000000",
    "train.micro_batch_size=-8",
    "train.gradient_accumulation_steps=0",
    "train.learning_rate=0",
    "train.learning_rate=1e6",
    "train.warmup_ratio=1.5",
    "train.weight_decay=-0.1",
    "train.max_grad_norm=0",
    "train.max_length=1",
    "train.max_length=9999999999",
    "train.early_stopping_patience=0",
    "train.eval_steps=0",
    "train.neftune_noise_alpha=-5",
    "train.log_steps=0",
    "task.max_left_out=2",
    "task.data.max_rows.train=0",
    "task.data.max_rows.test=1e30",
    "eval.batch_size=1000000000",
    "eval.decoding.max_new_tokens=0",
    "eval.decoding.max_new_tokens=1000000000",
    "eval.decoding.num_beams=100000",
    "eval.decoding.temperature=0",
    "eval.decoding.top_p=1.1",
    "eval.decoding.repetition_penalty=0",
    "eval.language=klingon",
    "adapter.r=0",
    "adapter.r=1000000000",
    "adapter.lora_dropout=1",
]


@pytest.mark.parametrize("override", ABSURD)
def test_x16_absurd_numbers(override, tmp_path):
    (problem,) = mistakes(GOOD, tmp_path, (override,))
    assert problem.path == override.partition("=")[0]
    assert "expected" in problem.message


REFUSED_PATHS = [
    "../rows.jsonl",
    "sub/../../rows.jsonl",
    "/etc/passwd",
    "//server/share/rows.jsonl",
    "~/rows.jsonl",
    "~root/rows.jsonl",
    "C:\\rows.jsonl",
    "C:/rows.jsonl",
    "..\\rows.jsonl",
    "sub\\rows.jsonl",
    "\\\\server\\rows.jsonl",
    "https://example.org/rows.jsonl",
    "HTTP://example.org/rows.jsonl",
    "s3://bucket/rows.jsonl",
    "gs://bucket/rows.jsonl",
    "hf://datasets/x/rows.jsonl",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "data:text/plain,x",
    "link.jsonl",
    "linked/rows.jsonl",
    "sub",
    "/rows.jsonl",
    ".",
    "..",
    "./" + "x" * 4000,
    "a\nb",
]


FOLDERS = ("sub", ".")  # no data files, but a model may be there

PLACES = [("task.data.train", text) for text in REFUSED_PATHS]
PLACES += [("base.model", text) for text in REFUSED_PATHS if text not in FOLDERS]


@pytest.mark.parametrize(("path", "text"), PLACES)
def test_x9_x15_paths_stay_inside(path, text, tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    for folder in (tmp_path, inside, inside / "sub"):
        (folder / "rows.jsonl").write_text("{}\n")
    (inside / "link.jsonl").symlink_to(tmp_path / "rows.jsonl")
    (inside / "linked").symlink_to(tmp_path)
    monkeypatch.chdir(inside)
    quoted = json.dumps(text)
    changed = {
        "task.data.train": GOOD.replace("data: embedded", f"data: {{train: {quoted}, draw: {{test: 0.1}}}}"),
        "base.model": GOOD.replace("model: embedded", f"model: {quoted}"),
    }
    (problem,) = mistakes(changed[path], inside)
    assert (problem.path, problem.line) == (path, {"task.data.train": 11, "base.model": 4}[path])


def test_x9_the_command_line_may_name_any_place(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "rows.jsonl").write_text("{}\n")
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    monkeypatch.setenv("HOME", str(tmp_path))
    text = GOOD.replace("data: embedded", "data: {train: x.jsonl, draw: {test: 0.1}}")
    for place in (str(outside / "rows.jsonl"), "../outside/rows.jsonl", "~/outside/rows.jsonl"):
        loaded = parse(text.encode(), "good.yaml", inside, (f"task.data.train={place}",))
        assert loaded.task.data.train == str(outside / "rows.jsonl")
        assert loaded.written("task.data.train") == place
    loaded = parse(GOOD.encode(), "good.yaml", inside, (f"base.model={outside}",))
    assert loaded.base.model == str(outside)
    (problem,) = mistakes(GOOD, inside, ("base.model=s3://bucket/model",))
    assert "a URL is not read" in problem.message


def test_x15_a_folder_is_never_taken_for_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace("model: embedded", "model: owner/name")
    assert parse(text.encode(), "good.yaml", tmp_path).base.model == "owner/name"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert parse(text.encode(), "good.yaml", tmp_path).base.model == str(tmp_path / "owner" / "name")
