"""`inlay check`: what is wrong with a recipe is said before anything runs, with the fix, and nothing is written."""

from __future__ import annotations

import json

import pytest
import tiny

from inlay.eval import MeasurementError
from inlay.tuner import check as checks
from inlay.tuner import preflight, recipe
from inlay.tuner.cli import main
from inlay.tuner.forecast import _batches, forecast, largest_batch
from inlay.tuner.problems import RequestError
from inlay.tuner.setting import survey
from inlay.tuner.training.rows import Order

ROWS = [{"document": f"The lamp {i} on desk {i * 7} is broken.", "summary": f"Lamp {i}."} for i in range(120)]
LABELLED = [{"text": f"Number {i} it is.", "label": ("even", "odd")[i % 2]} for i in range(120)]


@pytest.fixture
def given(tmp_path):
    """A function (train rows, test rows, task type, options) -> loaded recipe on the embedded base."""

    def write(train, test, task="summarization", **overrides):
        for name, rows in (("train", train), ("test", test)):
            text = "\n".join(json.dumps(row) for row in rows) + "\n"
            (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
        path = tmp_path / "r.yaml"
        path.write_text(
            "name: r\nbase: {model: embedded}\nadapter: {method: lora, r: 4}\n"
            f"task: {{type: {task}, data: {{train: train.jsonl, test: test.jsonl}}}}\n"
            "train: {max_steps: 6, micro_batch_size: 4}\n",
            encoding="utf-8",
        )
        return recipe.load(path, [f"{key}={value}" for key, value in overrides.items()])

    return write


def found(loaded) -> dict[str, preflight.Finding]:
    return {finding.code: finding for finding in preflight.findings(survey(loaded))}


def test_a_sound_recipe_passes_every_finding(given):
    checked = checks.check(given(ROWS[:60], ROWS[60:]), timed=False)
    assert checked.sound
    assert "FAIL" not in checked.text
    assert "warn" not in checked.text
    assert "<<The lamp 0 on desk 0 is broken.\n\nSummary:>>[[ Lamp 0.<|end|>]]" in checked.text
    assert "not measured: --no-timing" in checked.text


WRONG = {
    "overlap kept": (ROWS[:60], ROWS[50:], {"task.overlap": "keep"}, "D107", "FAIL", "task.overlap: drop_train"),
    "overlap dropped": (ROWS[:60], ROWS[50:], {}, "D107", "warn", "task.overlap: keep"),
    "few test rows": (ROWS[:60], ROWS[60:64], {}, "D108", "FAIL", "at least 6"),
    "not many test rows": (ROWS[:60], ROWS[60:80], {}, "D108", "warn", "more rows"),
    "duplicates": ([*ROWS[:60], *ROWS[:5]], ROWS[60:], {}, "D106", "warn", "remove them"),
    "replies cut short": (
        ROWS[:60], ROWS[60:], {"eval.decoding.max_new_tokens": 2}, "D110", "warn", "max_new_tokens:"
    ),
    "rate of a prompt": (ROWS[:60], ROWS[60:], {"train.learning_rate": 0.5}, "T201", "warn", "train.learning_rate"),
    "rate too small": (ROWS[:60], ROWS[60:], {"train.learning_rate": 1e-7}, "T201", "warn", "train.learning_rate"),
    "by heart": (ROWS[:60], ROWS[60:], {"train.max_steps": 2000}, "T202", "warn", "train.max_steps"),
    "documents cut": (
        [*ROWS[:60], {"document": "lamp " * 600, "summary": "Lamps."}], ROWS[60:], {"task.truncate": "true"},
        "D105", "warn", "longer context",
    ),
    "rows left out": (
        [*ROWS[:60], {"document": "lamp " * 600, "summary": "Lamps."}], ROWS[60:], {}, "D105", "warn", "task.truncate"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_fix(name, given):
    train, test, options, code, outcome, fix = WRONG[name]
    finding = found(given(train, test, **options))[code]
    assert finding.outcome == outcome
    assert fix in finding.help
    others = [f for f in found(given(train, test, **options)).values() if f.outcome == "FAIL" and f.code != code]
    assert others == []


def test_a_label_that_is_hardly_trained_on_is_named(given):
    train = [*LABELLED[:60], {"text": "Number none.", "label": "neither"}]
    loaded = given(train, LABELLED[60:], "classification")
    finding = next(f for f in preflight.findings(survey(loaded)) if f.code == "D109")
    assert finding.outcome == "warn"
    assert "1 of 3 labels" in finding.text
    assert "`neither`" in finding.text


def test_every_code_is_explained_and_an_unknown_one_is_answered():
    for code in [*preflight.CHECKS, "M301", "M302"]:
        text = checks.explain(code)
        assert text.startswith(f"{code}  ")
        assert len(text.splitlines()) > 2
    with pytest.raises(RequestError, match="known: D101"):
        checks.explain("D999")


def test_the_verb_writes_nothing_and_exits_by_the_answer(given, tmp_path, monkeypatch, capsys):
    given(ROWS[:60], ROWS[50:])
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    codes = []
    for more in ([], ["--set", "task.overlap=keep"], ["--set", "task.overlap=no"]):
        with pytest.raises(SystemExit) as caught:
            main(["check", "r.yaml", "--no-timing", *more])
        codes.append(caught.value.code)
    assert codes == [0, 1, 2]
    assert sorted(tmp_path.iterdir()) == before
    assert "next    inlay run r.yaml" in capsys.readouterr().out


def test_three_steps_are_timed(given):
    checked = checks.check(given(ROWS[:60], ROWS[60:70], **{"eval.decoding.max_new_tokens": 8}))
    assert "from 3 timed steps here" in checked.text


def test_what_fails_in_the_timed_steps_is_a_finding_beside_the_others(given, monkeypatch):
    def fails(*_, **__):
        raise MeasurementError("the likelihood is not finite")

    monkeypatch.setattr(checks, "score", fails)
    checked = checks.check(given(ROWS[:60], ROWS[60:]))
    assert not checked.sound
    assert "FAIL  M302  the timed steps failed: the likelihood is not finite" in checked.text
    assert "pass  D101" in checked.text


def test_a_text_task_is_checked_on_a_base_with_a_chat_template(given, tmp_path):
    tiny.save(tmp_path / "base", "llama", tokens=tiny.tokenizer(tiny.CHATML))
    texts = [{"text": row["document"] * 8} for row in ROWS]
    loaded = given(texts[:60], texts[60:], "language_modeling", **{"base.model": tmp_path / "base"})
    assert checks.check(loaded, timed=False).sound


def test_the_largest_batch_is_among_those_that_the_run_sees(given):
    setting = survey(given(ROWS[:59], ROWS[60:], **{"train.max_steps": 20}))
    shape, rows = largest_batch(setting), setting.data.training
    seen, batches = [], _batches(Order(len(rows), 0), 4)
    for _ in range(20):
        batch = [rows[i] for i in next(batches)]
        seen.append(len(batch) * max(len(row.ids) for row in batch))
    assert shape.rows * shape.tokens == max(seen)
    assert sum(1 for _ in zip(range(30), batches, strict=False)) == 30  # epoch after epoch


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("method", ["lora", "prefix", "bottleneck"])
def test_every_architecture_can_be_forecast(shape, method, given, tiny_models):
    options = {"base.model": tiny_models(shape), "adapter": f"{{method: {method}}}", "task.truncate": "true"}
    setting = survey(given(ROWS[:60], ROWS[60:], **options))
    predicted = forecast(setting)
    assert predicted.trainable_parameters == setting.method.trainable(setting.facts)
    assert predicted.parts["activations"] > 0
    assert 0 < predicted.peak_bytes[0] < predicted.peak_bytes[1]


@pytest.mark.parametrize("method", ["lora", "prefix", "bottleneck", "full", "prompt", "ia3"])
def test_more_rows_at_once_are_forecast_to_take_more_memory(method, given):
    def peak(size: int) -> tuple[int, int, int]:
        options = {"adapter": f"{{method: {method}}}", "train.micro_batch_size": size}
        setting = survey(given(ROWS[:60], ROWS[60:], **options))
        predicted = forecast(setting)
        assert predicted.trainable_parameters == setting.method.trainable(setting.facts)
        return predicted.parts["activations"], predicted.parts["logits"], sum(predicted.parts.values())

    small, large = peak(2), peak(16)
    assert large[0] > 5 * small[0] > 0
    assert large[1] > 5 * small[1] > 0
    assert large[2] > small[2]
