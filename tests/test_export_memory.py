"""What an export keeps in memory and where it computes, and how a process that ran out of either is told."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import kl_div

from inlay.eval import Decoding, Text
from inlay.eval.scoring import Scorable
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export import fresh_process, gguf_check, making, trial, witness
from inlay.tuner.export.gguf import write_gguf
from inlay.tuner.export.gguf_check import check_gguf
from inlay.tuner.export.order import Order
from inlay.tuner.export.proof import distance
from inlay.tuner.export.witness import Questions, fitting, logits
from inlay.tuner.meter import PeakMemory
from inlay.tuner.problems import MachineError

PROMPTS = [list(range(3, 40)), [5] * 70, [9]]


def test_logits_are_compared_as_far_as_they_fit_in_memory(tiny_models, tmp_path, monkeypatch):
    """At the end of each prompt, where all of it has been read."""
    folder = tiny_models("llama")
    file = write_gguf(folder, tmp_path / "m.gguf", "f16", template=None).file
    whole = check_gguf(file, folder, PROMPTS, template=None)
    row = 4 * json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    monkeypatch.setattr(gguf_check, "LOGIT_BYTES", len(PROMPTS) * 2 * row)
    found = check_gguf(file, folder, PROMPTS, template=None)
    assert found.tokens == sum(min(2, len(prompt)) for prompt in PROMPTS)
    assert 0 < found.largest <= whole.largest
    assert found.same_replies == whole.same_replies


@pytest.mark.fresh
def test_a_process_that_the_kernel_kills_is_the_machines_failure(monkeypatch):
    run = subprocess.run

    def killed(command, **options):
        return run(["sh", "-c", "kill -9 $$"], **options)

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(MachineError, match="ran out of memory, or was killed"):
        fresh_process.run_fresh("inlay.tuner.export.gguf_check", failed="the GGUF file cannot be read back")


def test_logits_are_compared_a_few_rows_at_a_time():
    """In float64 a comparison takes many times the room of what is compared."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(2000, 4000, generator=generator)
    second = first + 0.1 * torch.randn(2000, 4000, generator=generator)
    with PeakMemory("cpu") as before:
        pass
    with PeakMemory("cpu") as during:
        found = distance([first], [second])
    assert during.bytes - before.bytes < first.nbytes
    rows = list(zip(first, second, strict=True))
    kl = [float(kl_div(b.log_softmax(0), a.log_softmax(0), log_target=True, reduction="sum")) for a, b in rows]
    assert (found.examples, found.tokens) == (1, 2000)
    assert found.kl_mean == pytest.approx(sum(kl) / len(kl), rel=1e-3)
    assert found.kl_max == pytest.approx(max(kl), rel=1e-3)
    assert found.same_top == sum(int(a.argmax() == b.argmax()) for a, b in rows) / 2000
    assert found.logit_gap == float((first - second).abs().max())


def test_of_a_long_text_as_many_tokens_are_compared_as_fit(tiny_models):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_models("llama")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_models("llama"))
    examples = (Text("long", "Anna writes that it rains. " * 40), Text("next", "Ben answers."))
    render = Renderer(tokenizer, "causal", window=64, stride=32)
    scorable = Scorable(model, model, "causal", "nothing", 1)

    def heard(compared: int):
        questions = Questions(
            kind="causal",
            examples=examples,
            prompt_format="plain",
            around=("", ""),
            decoding=Decoding(),
            batch_size=1,
            window=64,
            stride=32,
            compared=compared,
        )
        return logits(scorable, questions, render)

    whole, cut = heard(10**6), heard(70)
    assert [len(rows) for rows in cut] == [70]
    assert len(whole) == 2
    torch.testing.assert_close(cut[0], whole[0][:70])
    assert fitting(10**9) == 1


@pytest.mark.parametrize(("free", "place"), [(0.9, "cpu"), (1.1, "cuda:0")])
def test_an_export_that_the_gpu_has_no_room_for_is_opened_on_the_cpu(free, place, tiny_models, monkeypatch):
    folder = tiny_models("llama")
    needed = (folder / "model.safetensors").stat().st_size + witness.WORKING_BYTES
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(free * needed), 10 * needed))
    assert witness._place(folder) == place


def test_the_gpu_is_given_back_before_the_export_is_opened(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(trial.base_models, "on_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("freed"))
    monkeypatch.setattr(trial, "run_fresh", lambda *_, **__: done.append("opened"))
    monkeypatch.setattr(witness, "read_answers", lambda _: done.append("read"))
    asked = SimpleNamespace(examples=(), model_dump_json=lambda: "{}")
    files = SimpleNamespace(folder=tmp_path)
    one = object.__new__(trial.Trial)
    one._questions, one._show = asked, SimpleNamespace(say=lambda _: None)
    one._source = SimpleNamespace(setting=SimpleNamespace(files=files))
    one._hear(tmp_path / "draft")
    assert done == ["freed", "opened", "read"]


def test_a_gpu_that_is_too_small_is_no_bug(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 16.00 GiB.\nMore")

    monkeypatch.setattr(making, "_source", full)
    with pytest.raises(MachineError, match="Tried to allocate 16") as caught:
        making.export(Order((tmp_path / "run",), tmp_path / "ship"))
    assert "CUDA_VISIBLE_DEVICES=" in caught.value.problems[0].help
    assert list(tmp_path.iterdir()) == []
