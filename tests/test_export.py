"""`inlay export`: a folder that loads alone and is the model that was benchmarked; or no folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_runs
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import inlay

import inlay as package
from inlay.tuner.base import Quantization
from inlay.tuner.export import making, merge, source
from inlay.tuner.problems import RequestError

CANARY = "hf_canaryCanaryCanaryCanary0123456789"
# What a user does with an export, in a process that knows nothing but the folder and transformers.
ALONE = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, asked = sys.argv[1], json.loads(sys.argv[2])
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
written = model.generate(**inputs)[0, inputs["input_ids"].shape[1]:]
loaded = [name for name in ("inlay", "peft", "bitsandbytes") if name in sys.modules]
print(json.dumps([inputs["input_ids"][0].tolist(), tokenizer.decode(written, skip_special_tokens=True), loaded]))
"""


@pytest.fixture(scope="module")
def world(tiny_models, tmp_path_factory):
    """A folder with runs of LoRA (dialogue, summarization) and of MAM (dialogue)."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_TOKEN", CANARY)
        tiny_runs.world(folder, tiny_models("llama"))
        for method, task in (("lora", "dialogue"), ("lora", "summarization"), ("mam", "dialogue")):
            code, _, err = inlay("run", tiny_runs.recipe(folder, method, task).name, "--output", f"{method}-{task}")
            assert code == 0, err
    return folder


def left(folder: Path) -> list[str]:
    """What lies in the folder that the world does not have."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith((".jsonl", ".yaml")))


def untouched(folder: Path) -> bool:
    return left(folder) == ["base", "lora-dialogue", "lora-summarization", "mam-dialogue"]


@pytest.mark.fresh
@pytest.mark.parametrize("task", ["dialogue", pytest.param("summarization", marks=pytest.mark.slow)])
def test_s34_an_export_loads_alone_and_writes_what_was_benchmarked(inside, task, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    code, out, err = inlay("export", f"lora-{task}", "--to", "ship", "--dtype", "fp32")
    assert code == 0, err
    assert "same output in 6 of 6 rows" in out
    made = json.loads((inside / "ship" / "export.json").read_text())
    assert made["proof"]["faults"] == []
    assert made["proof"]["distance"]["same_top"] == 1
    assert made["proof"]["same_prompts"] == 6
    (inside / "base").rename(inside / "gone")
    line = json.loads((inside / f"lora-{task}" / "predictions.jsonl").read_text().splitlines()[0])
    row = json.loads((inside / f"{task}-test.jsonl").read_text().splitlines()[0])
    asked = row["messages"][:-1] if task == "dialogue" else [{"role": "user", "content": row["document"]}]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "ship", json.dumps(asked)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    _, text, loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == []
    assert text.strip() == line["prediction"]
    _find_no_secret(inside / "ship", tmp_path)


def _find_no_secret(folder: Path, *places: Path) -> None:
    """X14: neither a token of the environment nor a path of this machine is in any byte of an export."""
    for path in folder.iterdir():
        content = path.read_bytes()
        assert CANARY.encode() not in content, path.name
        for place in (*places, Path.home()):
            assert str(place).encode() not in content, path.name


def test_a_card_tells_scores_proof_and_origin(inside):
    assert inlay("export", "lora-summarization", "--to", "ship")[0] == 0
    card = (inside / "ship" / "README.md").read_text()
    made = json.loads((inside / "ship" / "export.json").read_text())
    assert card.startswith("---\nlibrary_name:")
    for name, pair in made["proof"]["scores"].items():
        assert f"| {name} | {pair['reference']['value']:.4g}" in card
    assert made["adapter_sha256"] in card
    assert made["base"]["sha256"] in card
    assert set(made["weights"]) == {"model.safetensors"}
    tensors = load_file(inside / "ship" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert made["proof"]["floor"]["kl_mean"] > 0


def _changed(tensors, change):
    for name, tensor in tensors:
        yield name, change(tensor) if name.endswith("q_proj.weight") else tensor


WRONG = {
    "the update left out": lambda call: (
        (name, tensor) for name, tensor in _without_adapter(*call)
    ),
    "a weight scaled": lambda call: _changed(merge.merged_tensors(*call), lambda tensor: tensor * 1.05),
    "one layer repacked": lambda call: _changed(
        merge.merged_tensors(*call), lambda tensor: tensor[torch.randperm(len(tensor))]
    ),
    "merged inside 4 bit": lambda call: _changed(merge.merged_tensors(*call), _requantized),
}


def _without_adapter(setting, adapter, quantization):
    from inlay.adapters.none import NoAdapter, Untouched

    class Nothing(NoAdapter):
        def load(self, folder, model, facts):
            return Untouched(model)

    import dataclasses

    return merge.merged_tensors(dataclasses.replace(setting, method=Nothing(Nothing.Options())), adapter, quantization)


def _requantized(tensor):
    import bitsandbytes as bnb

    codes, state = bnb.functional.quantize_4bit(tensor.contiguous(), quant_type="nf4")
    return bnb.functional.dequantize_4bit(codes, state)


@pytest.mark.parametrize("wrong", WRONG)
def test_s25_a_wrong_merge_is_caught_and_nothing_is_written(inside, wrong, monkeypatch):
    monkeypatch.setattr(making, "merged_tensors", lambda *call: WRONG[wrong](call))
    code, out, err = inlay("export", "lora-dialogue", "--to", "ship", "--dtype", "fp32")
    assert (code, out) == (1, "")
    assert "is not the model that was benchmarked, and was not written" in err
    assert untouched(inside)


def test_s25_the_original_weights_need_leave_and_leave_their_numbers(inside):
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship", "--base", "original")
    assert code == 2
    assert "add --accept-drift" in err
    assert untouched(inside)
    code, out, err = inlay("export", "lora-dialogue", "--to", "ship", "--base", "original", "--accept-drift")
    assert code == 0, err
    assert "DRIFT" in out
    made = json.loads((inside / "ship" / "export.json").read_text())
    assert made["proof"]["distance"]["kl_mean"] > made["proof"]["kl_limit"]
    assert (made["accepted"], made["merged_into"]) == (True, "original")
    assert "is not the model that was benchmarked" in (inside / "ship" / "README.md").read_text()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_s28_one_flipped_bit_in_the_adapter_is_caught(inside):
    flip_a_bit(inside / "lora-dialogue" / "adapter" / "adapter_model.safetensors")
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship")
    assert code == 1
    assert "is not what was benchmarked" in err
    assert untouched(inside)


def test_s28_an_adapter_of_an_older_run_is_held_to_its_benchmark(inside):
    """A record without the adapter's hash: the likelihoods that the benchmark found tell."""
    record = inside / "lora-dialogue" / "run.json"
    content = json.loads(record.read_text())
    content["adapter"]["sha256"] = ""
    record.write_text(json.dumps(content))
    path = inside / "lora-dialogue" / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor + 0.3 for name, tensor in load_file(path).items()}, path)
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship")
    assert code == 1
    assert "are not the model that was benchmarked" in err
    assert untouched(inside)


def test_s29_a_swapped_base_is_refused(inside, tiny_models):
    shutil.rmtree(inside / "base")
    shutil.copytree(tiny_models("llama", seed=7), inside / "base")
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship")
    assert code == 2
    assert "is not the one this adapter was trained on" in err
    assert untouched(inside)


def test_s27_what_cannot_be_merged_says_so(inside):
    code, _, err = inlay("export", "mam-dialogue", "--to", "ship")
    assert code == 2
    assert "MAM adapter cannot be merged" in err
    assert untouched(inside)


def test_s27_what_cannot_be_merged_ships_beside_its_base_with_a_loader(inside):
    code, out, err = inlay("export", "mam-dialogue", "--to", "ship", "--format", "adapter")
    assert code == 0, err
    assert "same output in 6 of 6 rows" in out
    environment = {**os.environ, "BASE": str(inside / "base")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "ship/load.py", "How is the sport 30?"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    line = json.loads((inside / "mam-dialogue" / "predictions.jsonl").read_text().splitlines()[0])
    assert line["prompt"] == "User: How is the sport 30?\nBot:"
    assert done.stdout.strip().endswith(line["prediction"])
    _find_no_secret(inside / "ship", inside)


def test_a_target_that_holds_something_is_kept(inside):
    (inside / "ship").mkdir()
    (inside / "ship" / "mine").write_text("precious")
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship", "--overwrite")
    assert code == 2
    assert "is not empty, and no export" in err
    assert left(inside / "ship") == ["mine"]
    (inside / "ship" / "export.json").write_text("an export of before")
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship")
    assert code == 2
    assert "add --overwrite" in err
    assert package.export(inside / "lora-dialogue", to="ship", overwrite=True) == Path("ship")
    assert "mine" not in left(inside / "ship")
    assert not list(inside.glob(".*"))


def test_what_is_to_be_replaced_comes_back_where_the_replacement_fails(inside, monkeypatch):
    work, target = inside / "work", inside / "ship"
    for folder in (work / "merged", target):
        folder.mkdir(parents=True)
    (target / "export.json").write_text("precious")
    replace = os.replace

    def interrupted(source, to):
        if Path(source) == work / "merged":
            raise KeyboardInterrupt
        replace(source, to)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        making._name(work / "merged", work, target)
    assert (target / "export.json").read_text() == "precious"


@pytest.mark.parametrize("target", ["file", "link"])
def test_x10_a_target_that_is_no_folder_is_refused(inside, target):
    if target == "file":
        (inside / "ship").write_text("precious")
    else:
        (inside / "elsewhere").mkdir()
        (inside / "ship").symlink_to(inside / "elsewhere")
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship", "--overwrite")
    assert code == 2
    assert "is no folder" in err


def test_an_unfinished_run_has_nothing_to_export(inside):
    record = inside / "lora-dialogue" / "run.json"
    record.write_text(record.read_text().replace('"status": "complete"', '"status": "interrupted"'))
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship")
    assert code == 2
    assert "is interrupted" in err


@pytest.mark.parametrize("attempt", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 10))])
def test_f21_killed_at_any_moment_there_is_nothing_or_a_proved_folder(inside, attempt):
    command = [sys.executable, "-m", "inlay.tuner", "export", "lora-dialogue", "--to", "ship"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + random.Random(attempt).uniform(1, 14)
    while time.monotonic() < end and process.poll() is None and not (attempt == 0 and list(inside.glob(".ship*"))):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if (inside / "ship").exists():
        assert json.loads((inside / "ship" / "export.json").read_text())["proof"]["faults"] == []
    code, _, err = inlay("export", "lora-dialogue", "--to", "ship", "--overwrite")
    assert code == 0, err
    assert not list(inside.glob(".ship*"))


def test_weights_are_written_in_shards_that_load(inside, monkeypatch):
    from inlay.tuner.export import folder

    monkeypatch.setattr(folder, "SHARD_BYTES", 60_000)
    assert inlay("export", "lora-dialogue", "--to", "ship", "--dtype", "fp32")[0] == 0
    files = sorted(path.name for path in (inside / "ship").glob("*.safetensors"))
    assert len(files) > 2
    assert files[-1] == f"model-{len(files):05}-of-{len(files):05}.safetensors"
    held = [sum(t.nbytes for t in load_file(inside / "ship" / file).values()) for file in files]
    largest = max(t.nbytes for file in files for t in load_file(inside / "ship" / file).values())
    assert max(held) <= max(60_000, largest)


def test_the_quantization_of_the_benchmark_is_the_runs_own(inside):
    """The dtype that a base computed in decides what its weights were quantized from, wherever it is opened next."""
    record = inside / "lora-dialogue" / "run.json"
    content = json.loads(record.read_text())
    content["base"]["compute_dtype"] = "bf16"
    record.write_text(json.dumps(content))
    assert source.from_run(inside / "lora-dialogue").quantization == Quantization(4, "nf4", True, "bf16")


def test_a_4_bit_export_tells_what_its_quantization_costs(inside):
    code, out, err = inlay("export", "lora-dialogue", "--to", "ship", "--quantize", "4bit")
    assert code == 0, err
    assert "what it costs" in out
    made = json.loads((inside / "ship" / "export.json").read_text())
    assert made["proof"]["faults"] == []
    assert made["quantized"]["distance"]["kl_mean"] > made["proof"]["distance"]["kl_mean"]
    assert json.loads((inside / "ship" / "config.json").read_text())["quantization_config"]["load_in_4bit"]
    (weights,) = (inside / "ship").glob("*.safetensors")
    assert {tensor.dtype for tensor in load_file(weights).values()} > {torch.uint8}
    assert (inside / "ship" / "tokenizer.json").is_file()


def test_a_note_beside_an_adapter_says_how_its_base_was_held(inside):
    """The rows that it is proved on do not: its own weights, its own format and its own task are not theirs."""
    adapter = inside / "lora-dialogue" / "adapter"
    noted = json.loads((adapter / "base.json").read_text())
    (adapter / "base.json").write_text(json.dumps(noted | {"quantization": "fp32"}))
    found = source.from_adapter(adapter, "base", None, ("task.data.max_rows.test=4",))
    assert found.quantization == Quantization(32, compute_dtype="fp32")
    assert not found.formatted
    with pytest.raises(RequestError, match="noted beside the adapter"):
        source.from_adapter(adapter, "base", None, ("base.quantization.bits=4",))


def test_an_adapter_made_elsewhere_is_exported_with_its_base(inside):
    """PEFT's own folder, without a note of its base, trained on weights that were not quantized."""
    shutil.copytree(inside / "lora-dialogue" / "adapter", inside / "made")
    (inside / "made" / "base.json").unlink()
    code, _, err = inlay("export", "made", "--to", "ship")
    assert code == 2
    assert "add --base MODEL" in err
    code, _, err = inlay("export", "made", "--base", "base", "--to", "ship")
    assert code == 2
    assert "says how its base was held" in err
    asked = ["--recipe", "dialogue-lora.yaml", "--set", "base.quantization.bits=32", "--dtype", "fp32"]
    code, out, err = inlay("export", "made", "--base", "base", "--to", "ship", *asked)
    assert code == 0, err
    assert "same output in 6 of 6 rows" in out
    base, merged, adapter = (
        load_file(inside / name)
        for name in ("base/model.safetensors", "ship/model.safetensors", "made/adapter_model.safetensors")
    )
    layer = "model.layers.0.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
    scale = 32 / tiny_runs.OPTIONS["lora"]["r"]
    torch.testing.assert_close(merged[f"{layer}.weight"], base[f"{layer}.weight"].float() + scale * b @ a)


def test_a_gguf_export_reads_back_as_the_merged_model(inside):
    code, out, err = inlay("export", "lora-dialogue", "--to", "ship", "--format", "gguf", "--dtype", "fp32")
    assert code == 0, err
    assert "6 of 6 replies are the same" in out
    assert left(inside / "ship") == ["Modelfile", "README.md", "export.json", "model.gguf"]
    made = json.loads((inside / "ship" / "export.json").read_text())
    assert made["proof"]["faults"] == []
    assert made["gguf"]["logit_gap"] < 1e-3
    assert 'TEMPLATE """' in (inside / "ship" / "Modelfile").read_text()


def test_what_no_gguf_file_can_hold_is_refused_before_anything_is_written(inside):
    for arguments, reason in (
        (["--dtype", "q8_0"], "add --format gguf"),
        (["--format", "gguf", "--quantize", "4bit"], "use --dtype q8_0"),
    ):
        code, _, err = inlay("export", "lora-dialogue", "--to", "ship", *arguments)
        assert code == 2
        assert reason in err
    assert untouched(inside)
