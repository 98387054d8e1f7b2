"""Likelihoods: of given answers, and of every label of a choice. Sums over tokens in float64, whatever the batch."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING

from inlay.eval import Example, Text
from inlay.eval.continuation import Continuation, needs_equal_lengths
from inlay.eval.scoring import Rendering, Scorable, batches, logits_of, observing, pad

if TYPE_CHECKING:
    import torch

Ids = Sequence[int]
TOKENS = 8192  # of a batch, which bounds its logits; on a CPU, whose caches they leave, more took longer


def score_answers(scorable: Scorable, pairs: Sequence[tuple[Ids, Ids]], *, batch_size: int) -> list[float]:
    """The negative log-likelihood of each answer after its prompt.

    Rows are padded on the right, where no real token can see it. Every method scores the same positions: the answer's
    tokens, each predicted from all that stands before it.

    Args:
        pairs: (prompt ids, answer ids); for a sequence-to-sequence model the prompt goes to the encoder.
        batch_size: rows at once; changes the speed, not the result.

    Returns:
        One sum over the answer's tokens for each pair, in nats.
    """
    sums = [0.0] * len(pairs)
    with observing(scorable):
        for batch in batches([len(p) + len(a) for p, a in pairs], batch_size, tokens=TOKENS):
            prompts, answers = [pairs[i][0] for i in batch], [pairs[i][1] for i in batch]
            for i, answer, logits in zip(batch, answers, answer_logits(scorable, prompts, answers), strict=True):
                sums[i] = _nll(logits, answer)
    return sums


def answer_logits(scorable: Scorable, prompts: Sequence[Ids], answers: Sequence[Ids]) -> Iterator[torch.Tensor]:
    """For each row the logits (answer tokens, vocabulary) that predict its answer, in the model's dtype; no others are
    computed. To be called within `observing`."""
    if scorable.kind == "seq2seq":
        ids, mask = pad(prompts, scorable.pad_id, scorable.device)
        shifted = [[scorable.start_id, *answer[:-1]] for answer in answers]
        decoder, wanted = pad(shifted, scorable.pad_id, scorable.device)
        inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder}
    else:
        # The last token predicts nothing that is scored, so it is left out.
        rows = [[*prompt, *answer][:-1] for prompt, answer in zip(prompts, answers, strict=True)]
        ids, mask = pad(rows, scorable.pad_id, scorable.device)
        inputs, wanted = {"input_ids": ids, "attention_mask": mask}, mask.clone()
        for row, prompt in zip(wanted, prompts, strict=True):
            row[: len(prompt) - 1] = 0
    # Prepended tokens stand before the text.
    with logits_of(scorable.model, lambda hidden: hidden[:, -wanted.shape[1] :][wanted.bool()][None]):
        logits = scorable.model(**inputs).logits[0]
    return iter(logits.split([len(answer) for answer in answers]))


def likelihoods_behind(read: Continuation, answers: Sequence[Ids], pad_id: int) -> list[float]:
    """As `score_answers`, of one answer after each prompt that has been read; what was read stays as it is."""
    import torch

    logits = read.look_ahead([answer[:-1] or [pad_id] for answer in answers])
    return [
        _nll(torch.cat([first[None], row[: len(answer) - 1]]), answer)
        for first, row, answer in zip(read.last, logits, answers, strict=True)
    ]


def answer_pairs(render: Rendering, example: Example) -> list[tuple[Ids, Ids]]:
    """What `score_answers` takes for an example: one pair, or for a text one a window, each token of it scored once."""
    if isinstance(example, Text):
        return list(render.windows(example.text))
    return [(render.prompt_ids(example.turns), render.answer_ids(example.turns, example.answer))]


def score_examples(
    scorable: Scorable, examples: Sequence[Example], render: Rendering, *, batch_size: int
) -> list[tuple[float, int]]:
    """For each example the negative log-likelihood of what is scored of it, in nats, and the number of its tokens."""
    pairs = [answer_pairs(render, example) for example in examples]
    sums = iter(score_answers(scorable, [pair for own in pairs for pair in own], batch_size=batch_size))
    return [(sum(next(sums) for _ in own), sum(len(answer) for _, answer in own)) for own in pairs]


def score_choices(
    scorable: Scorable, prompts: Sequence[Ids], labels: Sequence[Sequence[Ids]], *, batch_size: int
) -> list[list[float]]:
    """The negative log-likelihood of every label after each prompt; a prompt is encoded once for all its labels.

    Args:
        prompts: one for each example.
        labels: for each example, the ids of every label as they stand after its prompt, end token included.
        batch_size: label rows at once is about four times this.

    Returns:
        For each example one sum a label, in nats.
    """
    results: list[list[float]] = [[] for _ in prompts]
    for batch, rows in choices_in_batches(scorable, prompts, labels, batch_size=batch_size):
        for i, row in zip(batch, rows, strict=True):
            results[i] = row
    return results


def choices_in_batches(
    scorable: Scorable,
    prompts: Sequence[Ids],
    labels: Sequence[Sequence[Ids]],
    *,
    batch_size: int,
    skip: Container[int] = (),
) -> Iterator[tuple[list[int], list[list[float]]]]:
    """As `score_choices`, a batch at a time.

    Args:
        skip: indices of prompts. A batch of such prompts alone is left out; all others come out as they would with it.

    Yields:
        The indices of a batch's prompts, and for each of them one sum a label.
    """
    choose, at_once = (_choose_seq2seq if scorable.kind == "seq2seq" else _choose_causal), 4 * batch_size
    if scorable.kind == "seq2seq" and scorable.prepends == "tokens":
        choose, at_once = _choose_paired, batch_size
    size = max(1, at_once // max(map(len, labels), default=1))
    equal = scorable.kind == "causal" and needs_equal_lengths(scorable)
    for batch in batches([len(p) for p in prompts], size, equal=equal):
        if not all(i in skip for i in batch):
            with observing(scorable):
                found = choose(scorable, [prompts[i] for i in batch], [labels[i] for i in batch])
            yield batch, found


def _nll(logits: torch.Tensor, ids: Ids) -> float:
    """Sum of the negative log-probabilities of `ids`, from logits (len(ids), vocabulary), in nats."""
    import torch

    chosen = torch.tensor(ids, dtype=torch.long, device=logits.device)[:, None]
    # Softmax in float32 as the model would; the sum in float64, so that its order does not matter.
    return float(-torch.log_softmax(logits.float(), -1).gather(-1, chosen).double().sum())


def _choose_causal(scorable: Scorable, prompts: Sequence[Ids], labels: Sequence[Sequence[Ids]]) -> list[list[float]]:
    read = Continuation(scorable, prompts)
    owners, flat = _flat(labels)
    sums = [_nll(read.last[i][None], label[:1]) for i, label in zip(owners, flat, strict=True)]
    if max(map(len, flat)) == 1:
        return _grouped(sums, labels)
    read.select(owners)
    logits = read.extend([label[:-1] or [scorable.pad_id] for label in flat])
    rest = [_nll(row[: len(label) - 1], label[1:]) for row, label in zip(logits, flat, strict=True)]
    return _grouped([a + b for a, b in zip(sums, rest, strict=True)], labels)


def _choose_seq2seq(scorable: Scorable, prompts: Sequence[Ids], labels: Sequence[Sequence[Ids]]) -> list[list[float]]:
    """The encoder runs once a prompt; the decoder once a label, on the repeated encoder states."""
    from transformers.modeling_outputs import BaseModelOutput

    ids, mask = pad(prompts, scorable.pad_id, scorable.device)
    encoded = scorable.inner.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    owners, flat = _flat(labels)
    decoder, _ = pad([[scorable.start_id, *label[:-1]] for label in flat], scorable.pad_id, scorable.device)
    logits = scorable.model(
        input_ids=ids[owners],
        attention_mask=mask[owners],
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded[owners]),
        decoder_input_ids=decoder,
    ).logits
    return _grouped([_nll(row[: len(label)], label) for row, label in zip(logits, flat, strict=True)], labels)


def _choose_paired(scorable: Scorable, prompts: Sequence[Ids], labels: Sequence[Sequence[Ids]]) -> list[list[float]]:
    """Virtual tokens enter the encoder through the whole model alone, so it runs once a label."""
    pairs = [(prompt, label) for prompt, row in zip(prompts, labels, strict=True) for label in row]
    return _grouped(score_answers(scorable, pairs, batch_size=len(pairs)), labels)


def _flat(labels: Sequence[Sequence[Ids]]) -> tuple[list[int], list[Ids]]:
    """All labels in one list, and for each the prompt that it belongs to."""
    return [i for i, row in enumerate(labels) for _ in row], [label for row in labels for label in row]


def _grouped(sums: Sequence[float], labels: Sequence[Sequence[Ids]]) -> list[list[float]]:
    """One list a prompt, from one sum a label."""
    following = iter(sums)
    return [[next(following) for _ in row] for row in labels]
