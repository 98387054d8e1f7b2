"""Texts: every token is learned once and scored once, whatever the window, as a plain transformers loop scores it."""

from __future__ import annotations

import pytest
import scorables
import tiny
import torch

from inlay.eval import Decoding, MeasurementError, Text
from inlay.eval.metrics import find
from inlay.eval.score import score
from inlay.tuner.data.rendering import Renderer

TEXT = " ".join(tiny.TEXT) * 3


def renderer(bos: bool = False, **lengths: int) -> Renderer:
    return Renderer(tiny.tokenizer(bos=bos), "causal", **lengths)


def nll_by_sliding(model, ids: list[int], window: int, stride: int) -> float:
    """The negative log-likelihood of a text in nats, by the loop of transformers' page on perplexity."""
    total, previous = 0.0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        labels = torch.tensor([ids[begin:end]])
        target = labels.clone()
        target[:, : -(end - previous)] = -100
        with torch.no_grad():
            mean = model(input_ids=labels, labels=target).loss.double().item()
        total += mean * int((target[0, 1:] != -100).sum())
        previous = end
        if end == len(ids):
            break
    return total


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(32, 31), (32, 16), (32, 1), (48, 7), (1000, 500)])
def test_windows_score_each_token_once(bos, window, stride):
    made = renderer(bos, window=window, stride=stride)
    whole = made.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    whole = [*([2] if bos else []), *whole, 0]
    pairs = made.windows(TEXT)
    assert [token for _, scored in pairs for token in scored] == whole[1:]
    assert all(len(read) >= 1 and len(read) + len(scored) <= window for read, scored in pairs)
    assert all(len(scored) <= stride for _, scored in pairs[1:])
    position = 1
    for read, scored in pairs:
        assert list(read) == whole[position - len(read) : position]
        position += len(scored)
    assert made.unscored(TEXT) == ("" if bos else made.tokenizer.decode(whole[:1]))


@pytest.mark.parametrize("length", [8, 31, 1000])
def test_training_rows_learn_each_token_once(length):
    made = renderer(row_length=length)
    rows = made.rows(Text("1", TEXT))
    whole = [*made.tokenizer(TEXT, add_special_tokens=False)["input_ids"], 0]
    assert all(len(row.ids) <= length for row in rows)
    learned = [i for row in rows for i, on in zip(row.ids, row.trained, strict=True) if on]
    assert learned == whole[1:]


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
@pytest.mark.parametrize(("window", "stride"), [(40, 20), (200, 100)])
def test_perplexity_is_that_of_a_plain_sliding_window(shape, window, stride, tiny_models):
    scorable = scorables.scorable(tiny_models(shape))
    made = renderer(window=window, stride=stride)
    texts = [Text(str(i), TEXT[: 40 + 150 * i]) for i in range(5)]
    metrics = [find("perplexity")("en"), find("bits_per_byte")("en")]
    settings = {"decoding": Decoding(), "batch_size": 3}
    found = score(scorable, texts, made, metrics, **settings)
    nats, tokens, size = 0.0, 0, 0
    for text in texts:
        ids = [*made.tokenizer(text.text, add_special_tokens=False)["input_ids"], 0]
        nats += nll_by_sliding(scorable.model, ids, window, stride)
        tokens += len(ids) - 1
        size += len(text.text.encode()) - len(made.tokenizer.decode(ids[:1]).encode())
    assert found.tokens_scored == tokens
    assert found.scores["perplexity"].value == pytest.approx(float(torch.tensor(nats / tokens).exp()), rel=1e-5)
    assert found.scores["bits_per_byte"].value == pytest.approx(nats / 0.6931471805599453 / size, rel=1e-5)
    if window == 200:
        with pytest.raises(MeasurementError, match="needs generated text"):
            score(scorable, texts, made, [find("rouge")("en")], **settings)
