"""Choices: a label's likelihood is that of the label written out after its prompt, however it is computed (S41)."""

from __future__ import annotations

import pytest
import scorables

from inlay import adapters
from inlay.eval import Choice, Decoding, Turn
from inlay.eval.likelihood import score_answers, score_choices
from inlay.eval.metrics import find as find_metric
from inlay.eval.score import score
from inlay.tuner.data.rendering import Renderer

SHAPES = ("llama", "gpt2", "gpt_neo", "gpt_neox", "gemma2", "gemma3_text", "qwen3", "t5")
METHODS = ("lora", "prefix", "bottleneck")
PROMPTS = scorables.ids(6, (1, 100))  # beyond the windows of gpt_neo (32) and gemma (64)
UNEQUAL = [(7, 0), (7, 8, 9, 10, 0), (11,), (300, 7, 0)]
WORDS = [(7,), (8,), (300,)]
TOLERANCE = 1e-4


def written_out(scorable, prompts, labels):
    """Each label as an answer of its own, one row at a time."""
    return [[score_answers(scorable, [(p, label)], batch_size=1)[0] for label in labels] for p in prompts]


def close(found, expected):
    return all(a == pytest.approx(b, rel=TOLERANCE, abs=TOLERANCE) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("labels", [UNEQUAL, WORDS], ids=["unequal", "words"])
def test_s41_labels_score_as_written_out(labels, shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape))
    expected = written_out(scorable, PROMPTS, labels)
    for size in (1, 3, 16):
        assert close(score_choices(scorable, PROMPTS, [labels] * len(PROMPTS), batch_size=size), expected)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma2", "t5"])
@pytest.mark.parametrize("name", [name for name in METHODS if name in adapters.names()])
def test_s41_with_an_adapter_too(name, shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape), name)
    expected = written_out(scorable, PROMPTS, UNEQUAL)
    for size in (1, 16):
        assert close(score_choices(scorable, PROMPTS, [UNEQUAL] * len(PROMPTS), batch_size=size), expected)


def test_s41_with_prepended_tokens_too(tiny_models):
    scorable = scorables.prompt_tuned(tiny_models("llama"))
    expected = written_out(scorable, PROMPTS, UNEQUAL)
    assert close(score_choices(scorable, PROMPTS, [UNEQUAL] * len(PROMPTS), batch_size=16), expected)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_s41_each_example_may_have_its_own_labels(shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape))
    own = [UNEQUAL[: 2 + i % 3] if i % 2 else list(reversed(UNEQUAL)) for i in range(len(PROMPTS))]
    found = score_choices(scorable, PROMPTS, own, batch_size=16)
    for prompt, labels, row in zip(PROMPTS, own, found, strict=True):
        assert close([row], written_out(scorable, [prompt], labels))


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
def test_s41_the_order_of_labels_is_no_matter(shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape))
    found = score_choices(scorable, PROMPTS, [UNEQUAL] * len(PROMPTS), batch_size=4)
    order = [2, 0, 3, 1]
    turned = score_choices(scorable, PROMPTS, [[UNEQUAL[i] for i in order]] * len(PROMPTS), batch_size=4)
    assert close(turned, [[row[i] for i in order] for row in found])


def test_s41_a_tie_goes_to_the_first_label(tiny_models):
    """Two labels of the same words have the same likelihood to the last bit, also beside longer ones and in batches."""
    scorable = scorables.scorable(tiny_models("llama"))
    render = Renderer(scorables.known(tiny_models("llama"), 32)[2], "causal")
    labels = ("no", "sport", "no", "a rather long label")
    turns = [(Turn("prompt", "word " * n + "Label:"),) for n in range(1, 9)]
    examples = [Choice(str(i), turn, labels, 2) for i, turn in enumerate(turns)]
    for size in (1, 8):
        metrics = [find_metric("accuracy")("en")]
        report = score(scorable, examples, render, metrics, decoding=Decoding(), batch_size=size)
        for record in report.records:
            assert record.label_nll_nats[0] == record.label_nll_nats[2]
            assert record.chosen != 2
            assert record.prediction == labels[record.chosen]
            assert record.nll_nats == record.label_nll_nats[2]
            assert record.label_tokens[3] > record.label_tokens[0]
            assert record.tokens == record.label_tokens[2]
