"""`inlay eval`: an adapter is measured on the base it was trained on, whole, or not at all."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_runs
from safetensors.torch import load_file, save_file
from tiny_runs import inlay, record


@pytest.fixture(scope="module")
def world(tiny_models, tmp_path_factory):
    """A folder in which a run of LoRA is done."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_runs.world(folder, tiny_models("llama"))
        path = tiny_runs.recipe(folder, "lora", "classification")
        code, _, err = inlay("run", path.name, "--output", "done")
        assert code == 0, err
    return folder


def refused(code_out_err) -> str:
    code, out, err = code_out_err
    assert (code, out) == (2, ""), err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    return err


def renamed(folder):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[f"{name}x"] = tensors.pop(name)
    save_file(tensors, path)


def other_rank(folder):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 2}))


def other_method(folder):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "peft_type": "PREFIX_TUNING"}))


def broken(folder):
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 100)


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (renamed, "1 missing"),
        (other_rank, "trained with r = 2, but r = 4 is asked for"),
        (other_method, "holds a PREFIX_TUNING adapter, not LORA"),
        (broken, "damaged"),
    ],
)
def test_s28_an_adapter_that_does_not_fit_is_refused(breaks, words, inside):
    breaks(inside / "done" / "adapter")
    assert words in refused(inlay("eval", "done"))
    assert record(tiny_runs.newest(inside, "eval-"))["status"] == "failed"


@pytest.mark.parametrize("target", ["done", "done/adapter"])
def test_s29_another_base_of_the_same_shape_is_refused_with_both_hashes(target, inside, tiny_models):
    trained_on = record(inside / "done")["base"]["sha256"][:12]
    shutil.copy(tiny_models("llama", seed=5) / "model.safetensors", inside / "base" / "model.safetensors")
    err = refused(inlay("eval", target, "--recipe", "classification-lora.yaml"))
    assert "is not the one this adapter was trained on" in err
    assert f"trained on {trained_on}" in err
    assert err.count("sha256") == 1


def test_an_adapter_in_a_folder_of_its_own_needs_a_recipe_and_gives_the_same_numbers(inside):
    shutil.copytree(inside / "done" / "adapter", inside / "alone")
    assert "--recipe" in refused(inlay("eval", "alone"))
    code, _, err = inlay("eval", "alone", "--recipe", "classification-lora.yaml", "--base", "./base")
    assert code == 0, err
    assert record(tiny_runs.newest(inside, "eval-"))["metrics"] == record(inside / "done")["metrics"]


def test_a_moved_run_still_evaluates(inside):
    (inside / "kept").mkdir()
    shutil.move(inside / "done", inside / "kept" / "moved")
    code, _, err = inlay("eval", "kept/moved")
    assert code == 0, err
    first, second = record(inside / "kept" / "moved"), record(tiny_runs.newest(inside, "eval-"))
    assert second["metrics"] == first["metrics"]
    code, _, err = inlay("report", "kept/moved")
    assert code == 0, err


def test_f11_other_rows_than_the_run_had_are_told(inside):
    path = inside / "classification-test.jsonl"
    path.write_text(path.read_text().replace("day 30", "day 77"))
    code, _, err = inlay("eval", "done")
    assert code == 0
    assert "classification-test.jsonl" in err
    assert "changed" in err


def test_another_metric_or_batch_size_of_a_run_may_be_asked_for(inside):
    code, _, err = inlay("eval", "done", "--set", "eval.metrics=[accuracy]", "--set", "eval.batch_size=2")
    assert code == 0, err
    first, second = record(inside / "done"), record(tiny_runs.newest(inside, "eval-"))
    assert second["metrics"]["tuned"] == {"accuracy": first["metrics"]["tuned"]["accuracy"]}
    assert second["eval"]["batch_size"] == 2


def test_x2_a_pickle_is_refused_unread(inside):
    (inside / "base" / "model.safetensors").unlink()
    (inside / "base" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    assert "is never read" in refused(inlay("eval", "./base", "--recipe", "classification-lora.yaml"))
    assert not (inside / "ran").exists()


def made_elsewhere(folder, base, **options):
    """An adapter that plain PEFT wrote, with weights that matter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    model.save_pretrained(folder)


def test_an_adapter_made_elsewhere_is_scored_with_its_own_options(inside):
    made_elsewhere(inside / "theirs", inside / "base", r=3, lora_alpha=7, target_modules=["q_proj", "v_proj"])
    arguments = ("eval", "theirs", "--base", "./base", "--recipe", "classification-lora.yaml")
    code, _, err = inlay(*arguments)
    assert code == 0, err
    found = record(tiny_runs.newest(inside, "eval-"))
    assert found["adapter"]["options"]["r"] == 3
    assert found["adapter"]["options"]["lora_alpha"] == 7
    # PEFT keeps the names in a set, so their order in its file is that of no one.
    assert sorted(found["adapter"]["options"]["target_modules"]) == ["q_proj", "v_proj"]
    assert found["metrics"]["tuned"] != found["metrics"]["base"]
    made_elsewhere(inside / "biased", inside / "base", r=3, bias="all", target_modules=["q_proj"])
    assert "bias = all" in refused(inlay("eval", "biased", *arguments[2:]))
    made_elsewhere(inside / "pattern", inside / "base", r=3, target_modules=".*q_proj")
    assert "is a pattern" in refused(inlay("eval", "pattern", *arguments[2:]))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("IA3Config", {"target_modules": ["down_proj", "v_proj", "k_proj"], "feedforward_modules": ["down_proj"]}),
        ("PromptTuningConfig", {"num_virtual_tokens": 3, "num_attention_heads": 4}),
        ("PromptEncoderConfig", {"num_virtual_tokens": 3, "encoder_hidden_size": 8}),
        ("PrefixTuningConfig", {"num_virtual_tokens": 3}),
    ],
)
def test_adapters_of_other_methods_made_elsewhere_are_scored(kind, options, inside):
    import peft
    from transformers import AutoModelForCausalLM

    config = getattr(peft, kind)(task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(inside / "base"), config)
    model.save_pretrained(inside / "theirs")
    code, _, err = inlay("eval", "theirs", "--base", "./base", "--recipe", "classification-lora.yaml")
    assert code == 0, err


def test_an_adapter_whose_start_edited_the_base_is_refused(inside):
    made_elsewhere(inside / "theirs", inside / "base", r=3, target_modules=["q_proj"], init_lora_weights="pissa")
    err = refused(inlay("eval", "theirs", "--base", "./base", "--recipe", "classification-lora.yaml"))
    assert "initialised by pissa, which edits the base" in err


@pytest.mark.parametrize("start", ["done", "done/adapter", "theirs"])
def test_training_goes_on_from_a_run_or_an_adapter_made_elsewhere(start, inside):
    if start == "theirs":
        made_elsewhere(inside / "theirs", inside / "base", r=3, lora_alpha=7, target_modules=["q_proj", "v_proj"])
    adapter = f"adapter={{method: lora, start_from: {start}}}"
    code, _, err = inlay("run", "classification-lora.yaml", "--set", adapter, "--output", "second")
    assert code == 0, err
    first, second = record(inside / "done"), record(inside / "second")
    rank = 3 if start == "theirs" else first["adapter"]["options"]["r"]
    assert second["adapter"]["options"]["r"] == rank
    assert second["metrics"]["base"] == first["metrics"]["base"]
    before = load_file(inside / (start if start != "done" else "done/adapter") / "adapter_model.safetensors")
    after = load_file(inside / "second" / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)
    assert all((before[name] - after[name]).abs().max() < 0.1 for name in before)  # two steps away, not a new start
    shutil.rmtree(inside / "done" if start != "theirs" else inside / "theirs")
    code, _, err = inlay("eval", "second")
    assert code == 0, err
    assert record(tiny_runs.newest(inside, "eval-"))["metrics"] == second["metrics"]


def test_a_wrong_start_is_refused(inside, tiny_models):
    from_done = ("--set", "adapter.start_from=done")
    assert "an adapter of the method lora, not prefix" in refused(
        inlay("run", "classification-lora.yaml", "--set", "adapter={method: prefix, start_from: done}")
    )
    err = refused(inlay("run", "classification-lora.yaml", "--set", "adapter={method: lora, r: 9, start_from: done}"))
    assert "has r = 4, and the recipe says 9" in err
    (inside / "empty").mkdir()
    assert "neither a run nor an adapter" in refused(
        inlay("run", "classification-lora.yaml", "--set", "adapter.start_from=empty")
    )
    shutil.copy(tiny_models("llama", seed=5) / "model.safetensors", inside / "base" / "model.safetensors")
    assert "is not the one this adapter was trained on" in refused(inlay("run", "classification-lora.yaml", *from_done))
