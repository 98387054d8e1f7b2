"""`inlay compare`: one base for all rows, the same numbers as runs of their own, rows that stay with their reasons."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import comparisons
import pytest
import tiny_runs
from comparisons import found, home, row, rows_of, spec
from tiny_runs import inlay

from inlay.tuner.comparison import bench, cell
from inlay.tuner.problems import MachineError


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_models):
    """A comparison of methods of every kind of layer and of prepended tokens, with a row that is refused."""
    folder = comparisons.world(tmp_path_factory.mktemp("compare"), tiny_models("llama"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        spec(
            folder,
            row("lora"),
            row("prefix"),
            row("ia3"),
            row("bottleneck"),
            row("prefix", label="refused", train={"gradient_checkpointing": True}),
            references={"few_shot": 1, "full": True},
        )
        code, out, err = inlay("compare", "spec.yaml")
    return folder, code, out, err


def test_every_row_and_reference_has_a_score_and_the_refused_one_its_reason(made):
    folder, code, _, err = made
    record = found(folder)
    rows = rows_of(record)
    assert code == 1, err  # a row that was asked for has no score
    assert rows["refused"]["status"] == "refused"
    assert "gradient_checkpointing" in rows["refused"]["reason"]
    assert {label for label, one in rows.items() if one["status"] == "done"} == {
        "LoRA", "prefix tuning", "IA3", "bottleneck adapter", "full fine-tuning", "base", "base, 1 example in context",
    }  # fmt: skip
    for one in rows.values():
        if one["status"] == "done":
            assert one["scores"]["rougeL"]["seeds"]
    assert all(rows[label]["scores"]["rougeL"]["group"] for label in ("LoRA", "prefix tuning", "IA3"))
    assert record["score"] == "rougeL"
    assert record["claim"] == "seeds"


@pytest.mark.parametrize("cell_name", ["lora-s1", "prefix-tuning-s0", "ia3-s0", "bottleneck-adapter-s1"])
def test_s40_a_cell_is_what_a_run_of_its_recipe_alone_is(made, cell_name, monkeypatch, tmp_path):
    folder, *_ = made
    monkeypatch.chdir(folder)
    there = home(folder) / "cells" / cell_name
    code, _, err = inlay("run", there / "recipe.yaml", "--output", tmp_path / "alone")
    assert code == 0, err
    alone, shared = tiny_runs.record(tmp_path / "alone"), tiny_runs.record(there)
    assert alone["metrics"] == shared["metrics"]
    weights = "adapter/adapter_model.safetensors"
    assert (tmp_path / "alone" / weights).read_bytes() == (there / weights).read_bytes()


def test_the_rows_of_a_seed_read_the_same_tokens_in_training_and_test(made):
    folder, *_ = made
    record = found(folder)
    methods = [one for one in record["rows"] if one["kind"] == "method"]
    cells = [tiny_runs.record(home(folder) / path) for one in methods for path in one["cells"]]
    for seed in (0, 1):
        of_seed = [run for run in cells if run["seed"] == seed]
        assert len({(run["train"]["tokens"], run["train"]["rows_seen"], run["train"]["steps"]) for run in of_seed}) == 1
    assert len({run["data"]["rows_sha256"] for run in cells}) == 1
    assert len({run["eval"]["tokens_scored"] for run in cells}) == 1
    assert len({run["base"]["sha256"] for run in cells}) == 1


def test_costs_are_told_and_only_methods_that_merge_have_a_merged_latency(made):
    rows = rows_of(found(made[0]))
    for label in ("LoRA", "prefix tuning", "IA3", "bottleneck adapter"):
        cost = rows[label]["cost"]
        assert cost["trainable_parameters"] > 0
        assert cost["adapter_bytes"] > 0
        assert cost["train_peak_bytes"] > 0
        assert cost["eval_peak_bytes"] > 0
        assert cost["latency_seconds"] > 0
        assert (cost["merged_latency_seconds"] is not None) == (label in ("LoRA", "IA3"))
        assert rows[label]["forgetting"] is not None
    assert rows["full fine-tuning"]["cost"]["extra_base_bytes"] > 0
    assert rows["LoRA"]["cost"]["extra_base_bytes"] == 0


def test_asking_again_for_a_finished_comparison_loads_no_model_and_prints_the_same(made, monkeypatch):
    folder, _, out, _ = made
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in home(folder).rglob("*") if path.is_file()}
    program = (
        "import sys\nfrom inlay.tuner import cli\n"
        "try:\n    cli.main(['compare', 'spec.yaml'])\nexcept SystemExit as end:\n    code = end.code\n"
        "print(code, sorted({'torch', 'transformers', 'peft', 'optuna', 'matplotlib'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{out}1 []\n"
    assert before == {path: path.stat().st_mtime_ns for path in home(folder).rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path, tiny_models, monkeypatch):
    """A working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return comparisons.world(tmp_path, tiny_models("llama"))


def test_s38_a_row_with_another_budget_is_not_ranked_with_the_others(folder):
    spec(folder, row("lora"), row("ia3"), row("prefix", train={"max_steps": 1}), seeds=1)
    code, *_ = inlay("compare", "spec.yaml")
    rows = rows_of(found(folder))
    assert code == 1
    assert rows["prefix tuning"]["status"] == "incomparable"
    assert "saw 4 training rows, LoRA 8" in rows["prefix tuning"]["reason"]
    assert rows["prefix tuning"]["scores"]["rougeL"]["group"] == ""
    assert rows["LoRA"]["scores"]["rougeL"]["group"]
    assert not [pair for pair in found(folder)["pairs"] if "prefix tuning" in (pair["a"], pair["b"])]


def test_s39_one_seed_makes_a_claim_about_examples_alone_and_says_so(folder):
    spec(folder, row("lora"), row("ia3"), seeds=1)
    assert inlay("compare", "spec.yaml")[0] == 0
    record = found(folder)
    assert record["claim"] == "examples"
    assert {pair["claim"] for pair in record["pairs"]} == {"examples"}
    assert any("Another seed might order the methods otherwise" in sentence for sentence in record["sentences"])


def test_a_row_that_fails_keeps_its_reason_and_the_others_go_on(folder, monkeypatch):
    measure = cell.train_and_measure

    def out_of_memory(setting, *arguments, **named):
        if setting.method.title == "IA3" and setting.recipe.seed == 1:
            raise MachineError("out of memory in training: tried 58 GB")
        return measure(setting, *arguments, **named)

    monkeypatch.setattr(cell, "train_and_measure", out_of_memory)
    spec(folder, row("lora"), row("ia3"), row("prefix"))
    code, *_ = inlay("compare", "spec.yaml")
    rows = rows_of(found(folder))
    assert code == 1
    assert rows["IA3"]["status"] == "failed"
    assert rows["IA3"]["reason"] == "seed 1: out of memory in training: tried 58 GB"
    assert rows["LoRA"]["status"] == rows["prefix tuning"]["status"] == "done"
    assert any("out of memory" in sentence for sentence in found(folder)["sentences"])


def test_a_base_that_an_adapter_left_changed_is_opened_afresh(folder, monkeypatch):
    opened = []
    open_base = bench.Bench._open
    monkeypatch.setattr(bench.Bench, "_open", lambda self: opened.append(1) or open_base(self))
    spec(folder, row("lora"), row("ia3"), seeds=1)
    assert inlay("compare", "spec.yaml")[0] == 0
    assert len(opened) == 1
    clean = found(folder)

    def leave_a_trace(self, clean):
        next(self.base.model.parameters()).data.add_(1)
        return make_sure(self, clean)

    make_sure = bench.Bench._make_sure
    monkeypatch.setattr(bench.Bench, "_make_sure", leave_a_trace)
    assert inlay("compare", "spec.yaml", "--again", "--output", folder / "traced")[0] == 0
    assert len(opened) > 2
    traced = json.loads((folder / "traced" / "comparison.json").read_text())
    assert [one["scores"] for one in traced["rows"]] == [one["scores"] for one in clean["rows"]]


def test_changed_rows_are_not_mixed_into_a_comparison_that_was_begun(folder):
    spec(folder, row("lora"), seeds=1)
    assert inlay("compare", "spec.yaml")[0] == 0
    with (folder / "summarization.jsonl").open("a") as rows:
        rows.write(json.dumps({"document": "new", "summary": "new"}) + "\n")
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 2
    assert "`summarization.jsonl` has changed" in err
    assert "--again" in err
    assert inlay("compare", "spec.yaml", "--again")[0] == 0


def test_methods_of_a_recipe_get_their_own_defaults(folder):
    code, _, err = inlay("compare", "recipe.yaml", "--methods", "lora,ia3", "--seeds", "1")
    assert code == 0, err
    record = found(folder)
    rates = {label: one["learning_rate"] for label, one in rows_of(record).items() if one["kind"] == "method"}
    assert rates == {"LoRA": 2e-4, "IA3": 3e-3}  # not the recipe's 0.01, which was chosen for its own method
    assert record["tuning"] == "Learning rates: untuned defaults of the methods."
    again = folder / "again.yaml"
    again.write_text(record["spec"])
    assert inlay("compare", again, "--output", folder / "again")[0] == 0


def test_sizes_are_matched_to_a_number_of_weights(folder):
    spec(folder, row("lora"), row("prefix"), row("bottleneck"), row("ia3"), seeds=1, match_parameters="4k")
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 0, err
    costs = {label: one["cost"] for label, one in rows_of(found(folder)).items() if one["cost"]}
    counts = {label: cost["trainable_parameters"] for label, cost in costs.items()}
    for label in ("LoRA", "prefix tuning", "bottleneck adapter"):
        assert 3000 < counts[label] < 5000, counts
    assert counts["IA3"] < 1000  # it has no size to choose


def test_finished_runs_are_compared_as_the_cells_that_they_are(made, monkeypatch, tmp_path):
    folder, *_ = made
    monkeypatch.chdir(folder)
    cells = [home(folder) / "cells" / name for name in ("lora-s0", "lora-s1", "ia3-s0", "ia3-s1")]
    code, out, err = inlay("compare", *cells, "--output", tmp_path / "out")
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    mine, theirs = rows_of(record), rows_of(found(folder))
    assert mine.keys() == {"LoRA", "IA3", "base"}
    for label, one in mine.items():
        for name, score in one["scores"].items():
            assert {**score, "group": ""} == {**theirs[label]["scores"][name], "group": ""}
    assert {pair["claim"] for pair in record["pairs"]} == {"seeds"}  # of those with the base as well
    assert mine["base"]["cost"] is None
    assert record["heading"] in out.replace("\n", " ")


def test_runs_on_other_rows_stand_apart(folder):
    recipe = folder / "recipe.yaml"
    assert inlay("run", recipe, "--output", "a")[0] == 0
    assert inlay("run", recipe, "--output", "b", "--set", "adapter={method: ia3}")[0] == 0
    other = ["--set", "adapter={method: prompt}", "--set", "task.data.max_rows.test=4"]
    assert inlay("run", recipe, "--output", "c", *other)[0] == 0
    code, *_ = inlay("compare", "a", "b", "c", "--output", "out")
    rows = rows_of(json.loads((folder / "out" / "comparison.json").read_text()))
    assert code == 1
    assert rows["prompt tuning"]["status"] == "incomparable"
    assert "was measured on other rows or tokens than LoRA" in rows["prompt tuning"]["reason"]
    assert rows["LoRA"]["status"] == rows["IA3"]["status"] == "done"
    shutil.copytree(folder / "a", folder / "copy")
    code, _, err = inlay("compare", "a", "copy", "--output", "twice")
    assert code == 2
    assert "a and copy are the same but for when they ran (seed 0)" in err


def test_classification_is_compared_by_accuracy(tmp_path, tiny_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    comparisons.world(tmp_path, tiny_models("gpt2"), "classification")
    spec(tmp_path, row("lora"), row("prompt"))
    assert inlay("compare", "spec.yaml")[0] == 0
    record = found(tmp_path)
    assert record["score"] == "accuracy"
    assert {one["status"] for one in record["rows"]} == {"done"}


def test_t5_is_compared_and_forgetting_is_left_out(tmp_path, tiny_models, monkeypatch):
    monkeypatch.chdir(tmp_path)
    comparisons.world(tmp_path, tiny_models("t5"))
    spec(tmp_path, row("lora"), row("prefix"), seeds=1)
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 0, err
    assert {one["forgetting"] for one in found(tmp_path)["rows"]} == {None}
