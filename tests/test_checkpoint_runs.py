"""Runs, comparisons and exports on a 4-bit checkpoint, and talking to a 4-bit export.

References are the same run on the plain folder that the checkpoint was made of, and plain transformers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import checkpoints
import comparisons
import hub_cache
import pytest
import scorables
import tiny_runs
import torch
import yaml
from answering import piped, predictions
from tiny_runs import inlay

from inlay.tuner.export import merge, proof, reference, source
from inlay.tuner.model_files import locate
from inlay.tuner.serve.opened import examine
from inlay.tuner.serve.stand import Stand, side_by_side

# As dynamic 4-bit checkpoints are held: some layers plain; here the head is quantized.
HELD = {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False, "llm_int8_skip_modules": ["layers.0.mlp"]}


def recipe(folder: Path, name: str, base: str, method: str = "lora", quantization: dict | None = None) -> str:
    """Writes a recipe that says nothing of how its base is held, unless told to; its file's name."""
    path = tiny_runs.recipe(folder, method, "dialogue")
    content = yaml.safe_load(path.read_text())
    content["base"] = {"model": base} | ({"quantization": quantization} if quantization else {})
    path.unlink()
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return f"{name}.yaml"


def run(folder: Path, name: str, *arguments: str, **options: dict) -> Path:
    code, _, err = inlay("run", recipe(folder, name, *arguments, **options), "--output", name)
    assert code == 0, err
    return folder / name


@pytest.fixture(scope="module")
def world(tiny_models, tmp_path_factory):
    """A folder with a plain base, two checkpoints of it, and runs on them."""
    folder = tmp_path_factory.mktemp("world")
    with contextlib.chdir(folder):
        tiny_runs.world(folder, tiny_models("llama"))
        checkpoints.make(folder / "base", folder / "nf4")
        checkpoints.make(folder / "base", folder / "fp4", dtype="bfloat16", **HELD)
        run(folder, "on-plain", "./base", quantization={"bits": 4})
        run(folder, "on-nf4", "./nf4")
        run(folder, "lora", "./fp4")
        run(folder, "full", "./fp4", "full")
        run(folder, "prefix", "./fp4", "prefix")
    return folder


def test_a_training_on_a_checkpoint_is_the_training_on_what_it_was_made_of(world):
    plain, checkpoint = (tiny_runs.record(world / name) for name in ("on-plain", "on-nf4"))
    for part in ("quantization", "compute_dtype", "parameters", "bytes"):
        assert plain["base"][part] == checkpoint["base"][part]
    assert plain["base"]["sha256"] != checkpoint["base"]["sha256"]
    assert plain["adapter"]["sha256"] == checkpoint["adapter"]["sha256"]
    assert plain["train"]["last_loss"] == checkpoint["train"]["last_loss"]
    assert predictions(world / "on-plain") == predictions(world / "on-nf4")


def test_s29_an_adapter_stays_on_the_files_that_it_was_trained_on(inside):
    code, _, err = inlay("eval", "on-plain/adapter", "--base", "nf4", "--recipe", "on-nf4.yaml")
    assert code == 2
    assert "is not the one this adapter was trained on" in err


def test_how_a_base_is_held_is_told_as_it_is_everywhere(world):
    held = yaml.safe_load((world / "lora" / "recipe.yaml").read_text())["base"]["quantization"]
    assert held == {"bits": 4, "quant_type": "fp4", "double_quant": False, "compute_dtype": "auto"}
    assert tiny_runs.record(world / "lora")["base"]["quantization"] == "fp4"
    assert json.loads((world / "lora" / "adapter" / "base.json").read_text())["quantization"] == "fp4"
    assert "nf4" not in (world / "lora" / "report.html").read_text()
    with contextlib.chdir(world):
        code, out, _ = inlay("check", "lora.yaml", "--no-timing")
        assert code == 0
        assert "base    fp4, fp4, " in out


@pytest.mark.parametrize(
    ("asked", "told"), [({"bits": 16}, "bits: 16"), ({"bits": 4, "quant_type": "nf4"}, "quant_type: nf4")]
)
@pytest.mark.parametrize("verb", ["run", "check", "compare"])
def test_another_quantization_than_the_checkpoints_is_one_line(verb, asked, told, inside):
    path = recipe(inside, "other", "./fp4", quantization=asked)
    if verb == "compare":
        (inside / path).rename(inside / "recipe.yaml")
        comparisons.spec(inside, comparisons.row("lora"), outside=None)
        path = "spec.yaml"
    before = sorted(os.listdir(inside))
    code, out, err = inlay(verb, path)
    assert (code, out) == (2, "")
    assert [line for line in err.splitlines() if line.startswith("error")] == [
        f"error: the weights of `fp4` are quantized already, as fp4, and {told} is asked for"
    ]
    assert sorted(os.listdir(inside)) == before


def test_s25_a_run_on_a_checkpoint_is_exported_as_what_it_is(inside):
    code, out, err = inlay("export", "lora", "--to", "ship", "--dtype", "fp32")
    assert code == 0, err
    assert "same output in 6 of 6 rows" in out
    made = json.loads((inside / "ship" / "export.json").read_text())
    assert (made["proof"]["distance"]["same_top"], made["proof"]["faults"]) == (1, [])
    assert made["base"]["quantization"] == "fp4"
    assert "quantization_config" not in json.loads((inside / "ship" / "config.json").read_text())


def test_s25_there_are_no_original_weights_to_merge_into(inside):
    code, _, err = inlay("export", "lora", "--to", "ship", "--base", "original", "--accept-drift")
    assert code == 2
    assert "there are no original weights here: those of `fp4` are quantized already" in err
    assert not list(inside.glob("*ship*"))


@pytest.mark.parametrize("method", ["loha", "dora", "oft", "ia3", "ln_tuning", "full"])
def test_s25_every_kind_of_merge_equals_base_and_adapter(method, inside):
    """Methods on plain and on quantized layers, and every weight; some layers were skipped, and the head was not."""
    found = source.from_run(inside / method if method == "full" else run(inside, method, "./fp4", method))
    tensors = dict(merge.merged_tensors(found.setting, found.adapter, found.quantization))
    plain = checkpoints.plain_model(found.setting.files.folder, tensors)
    base = found.setting.open_base()
    adapted = found.setting.method.load(found.adapter, base.model, base.facts)
    reference.compute_in(adapted.model, torch.float32)
    ids = torch.tensor([scorables.ids(2, (12, 12))[0]])
    with torch.no_grad():
        apart = proof.distance([adapted.model(input_ids=ids).logits[0]], [plain(input_ids=ids).logits[0]])
    assert apart.same_top == 1
    assert apart.kl_mean < proof.SAME_KL


@pytest.mark.slow
def test_an_adapter_beside_a_checkpoint_is_opened_by_its_loader(inside):
    """In the dtype of the run, which is not the checkpoint's."""
    code, out, err = inlay("export", "prefix", "--to", "ship", "--format", "adapter")
    assert code == 0, err
    assert "same output in 6 of 6 rows" in out
    environment = {**os.environ, "BASE": str(inside / "fp4")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "ship/load.py", "How is the sport 30?"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(predictions(inside / "prefix")[0]["prediction"])


def test_peft_adapters_without_a_note_need_none_on_a_checkpoint(inside):
    """How their base was held is in its files."""
    shutil.copytree(inside / "lora" / "adapter", inside / "made")
    (inside / "made" / "base.json").unlink()
    few = ("task.data.max_rows.train=4", "task.data.max_rows.test=4")
    found = source.from_adapter(inside / "made", "fp4", None, few)
    assert str(found.quantization) == "fp4"
    assert examine("made", base="fp4").quantization.compute_dtype == "bf16"
    (inside / "made" / "base.json").write_text(
        json.dumps({"model": "fp4", "sha256": locate("fp4").sha256(), "quantization": "nf4"})
    )
    for verb in (("export", "made", "--base", "fp4", "--to", "ship"), ("chat", "made", "--base", "fp4")):
        code, _, err = inlay(*verb)
        assert code == 2
        assert "quantized already, as fp4, and quant_type: nf4 is asked for" in err


def test_a_comparison_opens_a_checkpoint_once_for_methods_of_every_kind(inside):
    Path("recipe.yaml").write_text(Path(recipe(inside, "first", "./fp4")).read_text())
    rows = [comparisons.row(method) for method in ("lora", "loha", "prefix")]
    comparisons.spec(inside, *rows, references={"full": True}, seeds=1, outside=None)
    code, _, err = inlay("compare", "spec.yaml")
    assert code == 0, err
    record = comparisons.found(inside)
    assert {row["status"] for row in record["rows"]} == {"done"}
    cells = list((comparisons.home(inside) / "cells").glob("*/run.json"))
    assert len(cells) > 4
    assert {json.loads(cell.read_text())["base"]["quantization"] for cell in cells} == {"fp4"}


def test_several_adapters_of_a_checkpoint_are_served_by_turns(inside):
    """Among them one that needs its layers plain."""
    stand = Stand(side_by_side([examine(name) for name in ("lora", "full", "prefix")]))
    row = json.loads((inside / "dialogue-test.jsonl").read_text().splitlines()[0])
    for name in ("lora", "full", "fp4", "prefix", "lora"):
        written = reply(stand, name, row["messages"][0]["content"])
        wanted = predictions(inside / ("lora" if name == "fp4" else name))[0]
        assert written == wanted["base_prediction" if name == "fp4" else "prediction"]


def reply(stand: Stand, name: str, text: str) -> str:
    """What the stand's model of that name answers, as its run asks."""
    from inlay.eval.generate import generate

    target = stand.targets[name]
    prompt = target.renderer.tokenizer(f"User: {text}\nBot:", add_special_tokens=False)["input_ids"]
    decoding = stand.targets["lora"].decoding
    (ids,) = generate(stand.put_on(name), [tuple(prompt)], decoding, stop_ids=target.renderer.stop_ids, batch_size=1)
    return target.renderer.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_a_snapshot_of_the_hub_opens_as_a_folder_does(inside, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in (inside / "fp4").iterdir()}
    hub_cache.repository(tmp_path / "hub", "models", "org/model-bnb-4bit", files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = locate("org/model-bnb-4bit")
    assert (found.revision, found.stored) == (hub_cache.COMMIT, locate("fp4").stored)
    assert found.sha256() == locate("fp4").sha256()


@pytest.mark.parametrize("dtype", ["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
def test_a_4_bit_export_is_talked_to_as_plain_transformers_talks_to_it(dtype, inside, monkeypatch):
    code, out, err = inlay("export", "on-plain", "--to", "ship", "--quantize", "4bit", "--dtype", dtype)
    assert code == 0, err
    assert out.rstrip().endswith("next    inlay chat ship")
    shutil.rmtree(inside / "base")
    asked = ["How is the sport 3?", "How is the news 4? It rains."]
    expected = [by_transformers(inside / "ship", text) for text in asked]
    assert len(set(expected)) == 2
    for text, reply in zip(asked, expected, strict=True):
        code, lines, err = piped(monkeypatch, [text], "ship", "--max-new-tokens", 12)
        assert code == 0, err
        assert lines == [reply.replace("\n", "\\n").encode("ascii", "backslashreplace").decode()]
    Path("asked.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked))
    code, _, err = inlay(
        "generate", "ship", "--input", "asked.jsonl", "--output", "said.jsonl", "--max-new-tokens", 12
    )
    assert code == 0, err
    said = [json.loads(line)["prediction"] for line in Path("said.jsonl").read_text().splitlines()]
    assert said == expected


def by_transformers(folder: Path, text: str) -> str:
    """The reply of the folder's own template, model and tokenizer."""
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), checkpoints.opened_by_transformers(folder)
    asked = [{"role": "user", "content": text}]
    inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    return tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
