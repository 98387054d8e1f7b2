"""S25 on 8-bit bases: activations are rounded too, so an export is proved against the dequantized weights, and the run
is held to the int8 forward that it was benchmarked with.

References are transformers, bitsandbytes and PEFT on the same files.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import weakref
from pathlib import Path

import answering
import pytest
import tiny
import tiny_runs
import torch
from answering import predictions
from safetensors.torch import load_file, save_file
from tiny_runs import inlay

from inlay.tuner import base as bases


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with runs on an 8-bit base some of whose activations are large, as those of pretrained models are."""
    folder, model = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("model")
    tiny.save(model, "llama")
    weights = load_file(model / "model.safetensors")
    for name, weight in weights.items():
        if "layernorm" in name:
            weight[::16] *= 6
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    answering.made(folder, model, "dialogue", bits=8)
    with contextlib.chdir(folder):
        path = tiny_runs.recipe(folder, "prefix", "dialogue", bits=8)
        code, _, err = inlay("run", path.name, "--output", "prefix")
        assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def shipped(world, tmp_path_factory):
    """The folder with the run of dialogues exported in fp32: the folder, what was printed, the proof, and how many
    models were alive when each was opened."""
    folder, opened, held, alive = tmp_path_factory.mktemp("shipped"), bases.open_base, [], []
    shutil.copytree(world, folder, dirs_exist_ok=True)

    def noted(*arguments, **options):
        alive.append(sum(model() is not None for model in held))
        base = opened(*arguments, **options)
        held.append(weakref.ref(base.model))
        return base

    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(bases, "open_base", noted)
        code, out, err = inlay("export", "dialogue", "--to", "ship", "--dtype", "fp32")
        assert code == 0, err
    return folder, out, json.loads((folder / "ship" / "export.json").read_text())["proof"], alive


def answer_logits(model, tokenizer, row: dict) -> torch.Tensor:
    """Logits (tokens, vocabulary) that predict the answer of a row and its end."""
    (asked, answer) = (message["content"] for message in row["messages"])
    read, written = (tokenizer(text)["input_ids"] for text in (f"User: {asked}\nBot:", f" {answer}"))
    with torch.no_grad():
        logits = model(torch.tensor([[*read, *written]])).logits[0].double()
    return logits[len(read) - 1 :]


def divergence(folder: Path) -> float:
    """Of PEFT's int8 model from the export, which has its dequantized weights, in nats per token."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    held = BitsAndBytesConfig(load_in_8bit=True)
    base = AutoModelForCausalLM.from_pretrained(
        folder / "base", quantization_config=held, dtype=torch.float32, device_map={"": "cpu"}
    )
    int8 = PeftModel.from_pretrained(base, folder / "dialogue" / "adapter").eval()
    plain = AutoModelForCausalLM.from_pretrained(folder / "ship", dtype=torch.float32).eval()
    rows = [json.loads(line) for line in (folder / "dialogue-test.jsonl").read_text().splitlines()]
    found = []
    for row in rows:
        p, q = (torch.log_softmax(answer_logits(model, tokenizer, row), -1) for model in (plain, int8))
        found.append((p.exp() * (p - q)).sum(-1))
    return float(torch.cat(found).mean())


def test_s25_the_distance_of_the_int8_forward_is_measured_and_told(shipped):
    folder, out, proved, _ = shipped
    assert (proved["faults"], proved["distance"]["same_top"]) == ([], 1)
    assert proved["distance"]["kl_mean"] < 1e-6
    assert proved["int8"]["tokens"] == proved["distance"]["tokens"]
    assert proved["int8"]["kl_mean"] == pytest.approx(divergence(folder), rel=1e-3)
    assert proved["int8"]["kl_mean"] > 1e-6
    for text in (out, (folder / "ship" / "README.md").read_text()):
        (line,) = [line for line in text.splitlines() if "what was benchmarked rounds activations to int8" in line]
        assert f"KL divergence {proved['int8']['kl_mean']:.2g} nats per token" in line


def test_the_int8_model_is_gone_before_the_dequantized_one_is_opened(shipped):
    *_, alive = shipped
    assert alive == [0, 0, 0]  # to merge, to question in int8, and to question dequantized


def test_s25_in_the_batches_of_the_benchmark_the_int8_forward_is_the_same(shipped, inside):
    """In others it is not: the large activations of a batch decide which columns are rounded."""
    _, _, proved, _ = shipped
    assert proved["benchmark_nll"] < 1e-6
    code, _, err = inlay("eval", "dialogue", "--set", "eval.batch_size=1")
    assert code == 0, err
    alone = predictions(tiny_runs.newest(inside, "eval-"))
    pairs = zip(predictions(inside / "dialogue"), alone, strict=True)
    assert max(abs(one["nll_nats"] - other["nll_nats"]) for one, other in pairs) > 1e-3


def test_s28_a_run_in_8_bits_is_held_to_its_benchmark(inside):
    """A record without the adapter's hash: the likelihoods that the int8 forward gave tell."""
    record = inside / "dialogue" / "run.json"
    content = json.loads(record.read_text())
    content["adapter"]["sha256"] = ""
    record.write_text(json.dumps(content))
    path = inside / "dialogue" / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor + 0.1 for name, tensor in load_file(path).items()}, path)
    code, _, err = inlay("export", "dialogue", "--to", "ship")
    assert code == 1
    assert "are not the model that was benchmarked" in err
    assert not (inside / "ship").exists()


def test_an_adapter_beside_an_8_bit_base_is_proved_against_the_int8_forward(inside):
    """Its loader opens the same: there is nothing that is dequantized."""
    code, out, err = inlay("export", "prefix", "--to", "ship", "--format", "adapter")
    assert code == 0, err
    assert "same output in 6 of 6 rows" in out
    proved = json.loads((inside / "ship" / "export.json").read_text())["proof"]
    assert proved["int8"] is None
    assert proved["distance"]["kl_mean"] < 1e-6
    assert proved["benchmark_nll"] < 1e-6
