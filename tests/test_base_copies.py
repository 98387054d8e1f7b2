"""4-bit copies of large bases: the same bits again without quantizing; none that is damaged or of another base."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from inlay.tuner import base as bases
from inlay.tuner import base_copies, doctor
from inlay.tuner.base import Quantization
from inlay.tuner.base_copies import DRAFT, MARK
from inlay.tuner.model_files import locate
from inlay.tuner.weights import fingerprint

NF4 = Quantization(4, "nf4", True, "fp32")
IDS = torch.tensor([[5, 9, 17, 31, 8, 2]])


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where copies go, of models as small as these."""
    monkeypatch.setenv("INLAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base_copies, "LEAST_BYTES", 0)
    return tmp_path / "cache" / "bases"


@pytest.fixture
def quantized(monkeypatch):
    """The number of layers that have been quantized so far."""
    import bitsandbytes as bnb

    counted: list[None] = []
    real = bnb.nn.Params4bit._quantize
    monkeypatch.setattr(bnb.nn.Params4bit, "_quantize", lambda *call: (counted.append(None), real(*call))[1])
    return counted


def opened(folder, held: Quantization = NF4) -> bases.Base:
    files = locate(str(folder))
    facts = bases.read_facts(bases.read_config(files), held.bits)
    return bases.open_base(files, held, facts, bases.read_tokenizer(files))


def logits(base: bases.Base) -> torch.Tensor:
    inputs = {"decoder_input_ids": IDS} if base.facts.kind == "seq2seq" else {}
    with torch.no_grad():
        return base.model(input_ids=IDS, **inputs).logits


@pytest.mark.parametrize("held", [NF4, Quantization(4, "fp4", False, "bf16")], ids=str)
@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt_neox", "t5"])
def test_a_copy_is_the_same_bits_and_nothing_is_quantized_again(shape, held, tiny_models, place, quantized):
    first = opened(tiny_models(shape), held)
    assert len(list(place.iterdir())) == 1
    before = len(quantized)
    assert before >= 8
    second = opened(tiny_models(shape), held)
    assert len(quantized) == before
    assert fingerprint(second.model) == fingerprint(first.model)
    assert torch.equal(logits(second), logits(first))
    assert (second.sha256, second.files, second.bytes) == (first.sha256, first.files, first.bytes)
    kinds = [{name: type(m).__name__ for name, m in base.model.named_modules()} for base in (first, second)]
    assert kinds[0] == kinds[1]


def test_each_base_and_each_way_to_hold_it_has_its_own(tiny_models, place, tmp_path):
    opened(tiny_models("llama"))
    opened(tiny_models("llama"), Quantization(4, "fp4", True, "fp32"))
    opened(tiny_models("llama"), Quantization(4, "nf4", True, "bf16"))
    changed = shutil.copytree(tiny_models("llama"), tmp_path / "changed")
    tensors = load_file(changed / "model.safetensors")
    next(iter(tensors.values()))[0, 0] += 1
    save_file(tensors, changed / "model.safetensors", {"format": "pt"})
    opened(changed)
    assert len(list(place.iterdir())) == 4
    for bits in (8, 16, 32):
        opened(tiny_models("llama"), Quantization(bits))
    assert len(list(place.iterdir())) == 4


@pytest.mark.parametrize("damage", ["a flipped bit", "a lost file", "no mark", "no JSON"])
def test_a_damaged_copy_is_made_anew(damage, tiny_models, place, quantized):
    whole = fingerprint(opened(tiny_models("llama")).model)
    (copy,) = place.iterdir()
    weights = copy / "model.safetensors"
    if damage == "a flipped bit":
        content = bytearray(weights.read_bytes())
        content[-100] ^= 1
        weights.write_bytes(content)
    elif damage == "a lost file":
        weights.unlink()
    elif damage == "no mark":
        (copy / MARK).unlink()
    else:
        (copy / MARK).write_text("{")
    before = len(quantized)
    assert fingerprint(opened(tiny_models("llama")).model) == whole
    assert len(quantized) > before
    before = len(quantized)
    assert fingerprint(opened(tiny_models("llama")).model) == whole
    assert len(quantized) == before, "the new copy is whole"


def test_a_base_is_opened_where_no_copy_can_be_kept(tiny_models, place, monkeypatch):
    place.parent.mkdir()
    place.write_text("a file")
    assert opened(tiny_models("llama")).quantization == NF4
    place.unlink()
    free = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    opened(tiny_models("llama"))
    assert list(place.iterdir()) == []


def test_what_killed_processes_left_goes_after_a_day(tiny_models, place):
    for name, age in (("old", 2 * base_copies.STALE_SECONDS), ("new", 0)):
        draft = place / f"{DRAFT}{name}"
        draft.mkdir(parents=True)
        os.utime(draft, (time.time() - age,) * 2)
    opened(tiny_models("llama"))
    assert [path.name for path in place.glob(f"{DRAFT}*")] == [f"{DRAFT}new"]


def test_small_bases_and_checkpoints_are_not_copied(tiny_models, place, tmp_path, monkeypatch):
    opened(tiny_models("llama"))
    (copy,) = place.iterdir()
    for path in tiny_models("llama").glob("*token*"):
        shutil.copy2(path, copy)
    opened(copy)
    assert list(place.iterdir()) == [copy]
    shutil.rmtree(copy)
    monkeypatch.undo()
    monkeypatch.setenv("INLAY_CACHE", str(place.parent))
    opened(tiny_models("llama"))
    assert list(place.iterdir()) == []


def test_doctor_tells_what_is_kept_and_the_mark_of_which_base(tiny_models, place):
    assert "4-bit bases" not in doctor.examine()[0]
    base = opened(tiny_models("llama"))
    (copy,) = place.iterdir()
    assert json.loads((copy / MARK).read_text())["base"] == base.files.name
    assert f"4-bit bases 1 kept, 0.0 GB in {place}; they may be deleted" in doctor.examine()[0]
