"""Likelihoods: the same positions for every method, the same sums whatever the batch, and a model only observed."""

from __future__ import annotations

import dataclasses
import math

import pytest
import scorables
import torch
from method_cases import methods_on

from inlay import adapters
from inlay.eval import Decoding, MeasurementError, Reply, Turn
from inlay.eval.likelihood import score_answers
from inlay.eval.metrics import find as find_metric
from inlay.eval.score import score
from inlay.eval.scoring import batches, observing
from inlay.tuner.data.rendering import Renderer

SHAPES = ("llama", "gpt2", "t5")
TEXT = "the lamp is broken Anna writes that order 4821 has not arrived кошка спит sport news weather yes no"
WORDS = TEXT.split()
EXAMPLES = [
    Reply(f"row-{i}", (Turn("prompt", " ".join(WORDS[: 1 + i % 11]) + ":"),), (" ".join(WORDS[i % 7 : 8 + i % 9]),))
    for i in range(32)
]


def pairs(rows: int = 10) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(zip(scorables.ids(rows, (1, 30), 1), scorables.ids(rows, (1, 9), 2), strict=True))


@pytest.mark.parametrize(("shape", "name"), [(s, name) for s in SHAPES for name in [*methods_on(s), "prompt tuning"]])
@pytest.mark.parametrize("pads", [0, 3, 20])
def test_s11_pads_change_nothing(pads, name, shape, tiny_models):
    scorable = _any_method(tiny_models(shape), name)
    (prompt, answer) = pairs()[4]
    alone = score_answers(scorable, [(prompt, answer)], batch_size=1)[0]
    longer = (prompt * 2)[: len(prompt) + pads], answer  # in the same batch, so that the row gets so many pads
    batched = score_answers(scorable, [(prompt, answer), longer], batch_size=2)
    assert batched[0] == pytest.approx(alone, rel=1e-5)
    assert batched[1] == pytest.approx(score_answers(scorable, [longer], batch_size=1)[0], rel=1e-5)


def _any_method(folder, name):
    return scorables.prompt_tuned(folder) if name == "prompt tuning" else scorables.scorable(folder, name)


@pytest.mark.parametrize("shape", SHAPES)
def test_s13_every_method_scores_the_same_positions(shape, tiny_models):
    """The likelihood of an answer is the sum over its tokens, each given all before it, for any method."""
    found = {}
    for name in [*methods_on(shape), "prompt tuning"]:
        scorable = _any_method(tiny_models(shape), name)
        found[name] = score_answers(scorable, pairs(5), batch_size=4)
        assert found[name] == pytest.approx([_chain(scorable, *pair) for pair in pairs(5)], rel=1e-4)
    for name in ("lora", "prefix", "bottleneck", "prompt tuning"):
        difference = max(abs(a - b) for a, b in zip(found[name], found["none"], strict=True))
        assert difference > 1e-2, f"{name} must matter for this test to mean something"


def _chain(scorable, prompt, answer) -> float:
    """One forward pass a token, without pads: the probability of the next token at the last position."""
    total = 0.0
    for i, token in enumerate(answer):
        if scorable.kind == "seq2seq":
            inputs = {"input_ids": [list(prompt)], "decoder_input_ids": [[scorable.start_id, *answer[:i]]]}
        else:
            inputs = {"input_ids": [[*prompt, *answer[:i]]]}
        with torch.no_grad():
            scorable.model.eval()
            logits = scorable.model(**{key: torch.tensor(value) for key, value in inputs.items()}).logits[0, -1]
        total -= float(torch.log_softmax(logits.double(), -1)[token])
    return total


@pytest.mark.parametrize("name", [name for name in adapters.names() if adapters.find(name).identity])
def test_s13_an_adapter_without_effect_scores_as_the_base(name, tiny_models):
    base = scorables.opened(tiny_models("llama"))
    expected = score_answers(scorables.Scorable(base.model, base.model, "causal", "nothing", 1), pairs(), batch_size=4)
    kind = adapters.find(name)
    fresh = kind(kind.Options()).attach(base.model, base.facts, seed=0, steps=50)
    adapted = scorables.Scorable(fresh.model, fresh.inner, "causal", kind.prepends, 1)
    assert score_answers(adapted, pairs(), batch_size=4) == expected


def test_s13_token_counts_are_those_of_the_answers_for_every_method(tiny_models):
    render = Renderer(scorables.known(tiny_models("llama"), 32)[2], "causal")
    expected = [len(render.answer_ids(example.turns, example.references[0])) for example in EXAMPLES[:6]]
    for name in [*adapters.names(), "prompt tuning"]:
        report = _perplexity(_any_method(tiny_models("llama"), name), render, 4, EXAMPLES[:6])
        assert [record.tokens for record in report.records] == expected
        assert report.tokens_scored == sum(expected)


def _perplexity(scorable, render, size, examples=EXAMPLES):
    metrics = [find_metric("perplexity")("en")]
    return score(scorable, examples, render, metrics, decoding=Decoding(), batch_size=size)


@pytest.mark.parametrize("bits", [32, 4])
def test_s14_perplexity_is_batch_invariant_and_that_of_a_plain_loop(bits, tiny_models):
    folder = tiny_models("llama")
    scorable = scorables.scorable(folder, bits=bits)
    render = Renderer(scorables.known(folder, bits)[2], "causal")
    expected = _plain_loop(folder, bits, render)
    for size in (1, 2, 5, 8, 32):
        value = _perplexity(scorable, render, size).scores["perplexity"].value
        assert value == pytest.approx(expected, rel=1e-6), size


def _plain_loop(folder, bits, render) -> float:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantized = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=quantized if bits == 4 else None
    )
    model.train()  # bitsandbytes computes in bf16 in evaluation mode; this model has no dropout
    total, tokens = 0.0, 0
    for example in EXAMPLES:
        prompt = render.prompt_ids(example.turns)
        answer = render.answer_ids(example.turns, example.references[0])
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits.double(), torch.tensor(answer), reduction="sum"))
        tokens += len(answer)
    return math.exp(total / tokens)


class _Poisoned(torch.nn.Module):
    """A model whose last hidden states, and so logits, are not finite where a row holds a given token."""

    def __init__(self, model, token: int, value: float) -> None:
        super().__init__()
        self.model, self.token, self.value = model, token, value

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()

    def forward(self, input_ids, **more):
        found = (input_ids == self.token).any(-1)[:, None, None]
        handle = self.get_output_embeddings().register_forward_pre_hook(
            lambda _, inputs: inputs[0].masked_fill(found, self.value), prepend=True
        )
        try:
            return self.model(input_ids=input_ids, **more)
        finally:
            handle.remove()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_s15_a_row_without_a_finite_likelihood_is_an_error(value, tiny_models):
    clean = scorables.scorable(tiny_models("llama"))
    render = Renderer(scorables.known(tiny_models("llama"), 32)[2], "causal")
    marked = dataclasses.replace(EXAMPLES[5], turns=(Turn("prompt", "@"),), id="file.jsonl:6")
    examples = [*EXAMPLES[:5], marked, *EXAMPLES[6:12]]
    (token,) = render.prompt_ids(marked.turns)
    assert _perplexity(clean, render, 4, examples).scores["perplexity"].n == 12
    poisoned = dataclasses.replace(clean, model=_Poisoned(clean.model, token, value))
    with pytest.raises(MeasurementError, match=r"1 of 12 answers is not finite \(rows file\.jsonl:6\)"):
        _perplexity(poisoned, render, 4, examples)


def test_s15_no_examples_is_an_error(tiny_models):
    scorable = scorables.scorable(tiny_models("llama"))
    with pytest.raises(MeasurementError, match="no examples"):
        _perplexity(scorable, Renderer(scorables.known(tiny_models("llama"), 32)[2], "causal"), 4, [])


def test_s23_no_module_trains_while_scoring_and_the_modes_come_back(tiny_models):
    scorable = scorables.scorable(tiny_models("gpt2"), "lora")  # GPT-2 has dropout of its own
    render = Renderer(scorables.known(tiny_models("gpt2"), 32)[2], "causal")
    metrics = [find_metric("perplexity")("en"), find_metric("rouge")("en")]
    scorable.model.train()
    for module in list(scorable.model.modules())[::3]:
        module.training = False
    modes = [module.training for module in scorable.model.modules()]
    assert len(set(modes)) == 2
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, *_: seen.append(module.training or torch.is_grad_enabled()))
        for module in scorable.model.modules()
    ]
    reports = [
        score(scorable, EXAMPLES[:6], render, metrics, decoding=Decoding(max_new_tokens=6), batch_size=3)
        for _ in range(2)
    ]
    assert len(seen) > 100
    assert not any(seen)
    assert reports[0].records == reports[1].records
    assert [module.training for module in scorable.model.modules()] == modes
    for hook in hooks:
        hook.remove()
    scorable.model.train()
    batch = torch.tensor([PROMPT])
    assert not torch.equal(scorable.model(batch).logits, scorable.model(batch).logits), "its dropout does draw"


PROMPT = list(range(20, 40))


class _Stubborn(torch.nn.Module):
    """A module that does not leave training mode."""

    def train(self, mode: bool = True):
        return super().train(True)


def test_s23_a_module_that_stays_in_training_mode_is_an_error(tiny_models):
    scorable = scorables.scorable(tiny_models("llama"))
    scorable.model.add_module("stubborn", _Stubborn())
    scorable.model.train()
    with pytest.raises(MeasurementError, match="_Stubborn stays in training mode"), observing(scorable):
        pass
    assert all(module.training for module in scorable.model.modules())


def test_batches_hold_every_index_once():
    lengths = [5, 3, 5, 5, 9, 1, 3, 3]
    for equal in (False, True):
        made = batches(lengths, 2, equal=equal)
        assert sorted(i for batch in made for i in batch) == list(range(8))
        assert max(map(len, made)) == 2
        if equal:
            assert all(len({lengths[i] for i in batch}) == 1 for batch in made)


def test_a_batch_holds_no_more_tokens_than_it_may_padding_included():
    lengths = [9, 1, 4, 30, 4, 4, 3]
    made = batches(lengths, 4, tokens=12)
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    assert [3] in made  # longer than that by itself
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 12
    assert max(map(len, made)) == 3
