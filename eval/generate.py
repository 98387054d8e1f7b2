"""Generation in batches that gives, in fp32, what generating one prompt at a time gives."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING

from inlay.eval import Decoding
from inlay.eval.continuation import Continuation, follow, needs_equal_lengths, takes_positions
from inlay.eval.likelihood import TOKENS, likelihoods_behind, score_answers
from inlay.eval.scoring import Scorable, batches, observing, pad

if TYPE_CHECKING:
    from torch import Tensor


def generate(
    scorable: Scorable,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    stop_ids: Sequence[int],
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Continues each prompt.

    Prompts of a causal model are padded on the left, so that what is generated follows the prompt at once. Where pads
    would change the result, a batch holds one length only.

    Args:
        prompts: token ids; for a sequence-to-sequence model, of the encoder.
        stop_ids: generation of a row ends with the first of these.
        progress: called with the number of finished prompts.

    Returns:
        The new ids of each prompt, the stop token included where there is one, pads after it left out.
    """
    results: list[list[int]] = [[] for _ in prompts]
    done = 0
    for batch, rows in in_batches(scorable, prompts, decoding, stop_ids=stop_ids, batch_size=batch_size):
        for i, row in zip(batch, rows, strict=True):
            results[i] = row
        done += len(batch)
        if progress:
            progress(done)
    return results


def generate_and_score(
    scorable: Scorable,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    stop_ids: Sequence[int],
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[list[int]], list[float]]:
    """As `generate`, and the negative log-likelihood, in nats, of an answer after each prompt.

    A prompt is read once for both, where it is our own loop that generates and no layer lets what it computes of a
    token depend on what else is read with it, as one of 8 bits does.
    """
    together = _own(scorable, decoding) and not getattr(scorable.inner, "is_loaded_in_8bit", False)
    if not together or min(batch_size, len(answers)) * max(map(len, answers)) > TOKENS:
        sums = score_answers(scorable, list(zip(prompts, answers, strict=True)), batch_size=batch_size)
        written = generate(scorable, prompts, decoding, stop_ids=stop_ids, batch_size=batch_size, progress=progress)
        return written, sums
    written, sums, done = [[] for _ in prompts], [0.0] * len(prompts), 0
    for batch in batches([len(p) for p in prompts], batch_size, equal=_equal(scorable, decoding)):
        wanted, found = [answers[i] for i in batch], []

        def score(read: Continuation, wanted=wanted, found=found) -> None:
            found += likelihoods_behind(read, wanted, scorable.pad_id)

        with observing(scorable):
            rows = _retiring(scorable, [prompts[i] for i in batch], decoding, stop_ids, None, score)
        for i, row, nll in zip(batch, rows, found, strict=True):
            written[i], sums[i] = row, nll
        done += len(batch)
        if progress:
            progress(done)
    return written, sums


def in_batches(
    scorable: Scorable,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    stop_ids: Sequence[int],
    batch_size: int,
    skip: Container[int] = (),
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """As `generate`, a batch at a time.

    Args:
        skip: indices of prompts. A batch of such prompts alone is left out; all others come out as they would with it.

    Yields:
        The indices of a batch's prompts, and the new ids of each.
    """
    begun = 0
    for batch in batches([len(p) for p in prompts], batch_size, equal=_equal(scorable, decoding)):
        if not all(i in skip for i in batch):
            yield batch, _write(scorable, [prompts[i] for i in batch], decoding, stop_ids, begun=begun)
        begun += len(batch)


def stream(
    scorable: Scorable,
    prompt: Sequence[int],
    decoding: Decoding,
    *,
    stop_ids: Sequence[int],
    heard: Callable[[int], None],
) -> list[int]:
    """As `generate` of one prompt, told token by token.

    Args:
        heard: called with each new token as soon as it is chosen, the stop token included; with beams, which may change
            until the last step, with all of them at the end.
    """
    return _write(scorable, [prompt], decoding, stop_ids, begun=0, heard=heard)[0]


def _write(
    scorable: Scorable,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    stop_ids: Sequence[int],
    *,
    begun: int,
    heard: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """One batch: by our own loop where it can decode so, by transformers' where it cannot.

    Args:
        begun: how many prompts were written before; what is drawn depends on it and on the seed alone.
        heard: as for `stream`; the batch is then of one prompt.
    """
    import torch

    with observing(scorable), torch.random.fork_rng(enabled=decoding.draws):
        if decoding.draws:
            torch.manual_seed(decoding.seed + begun)
        return (_retiring if _own(scorable, decoding) else _together)(scorable, prompts, decoding, stop_ids, heard)


def _own(scorable: Scorable, decoding: Decoding) -> bool:
    """Whether our own loop decodes so."""
    return scorable.kind == "causal" and decoding.greedy and takes_positions(scorable)


def _equal(scorable: Scorable, decoding: Decoding) -> bool:
    """Whether a batch may hold prompts of one length only."""
    if scorable.kind == "seq2seq":
        return False
    if _own(scorable, decoding):
        return needs_equal_lengths(scorable)
    # A repetition penalty counts the pads of a prompt among the tokens that have occurred.
    return scorable.prepends == "tokens" or decoding.repetition_penalty != 1.0


def _retiring(
    scorable: Scorable,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    stop_ids: Sequence[int],
    heard: Callable[[int], None] | None,
    prompted: Callable[[Continuation], None] = lambda _: None,
) -> list[list[int]]:
    """Greedy: the likeliest token each time."""
    written: list[list[int]] = [[] for _ in prompts]

    def goes_on(row: int, token: int) -> bool:
        written[row].append(token)
        if heard:
            heard(token)
        return token not in stop_ids and len(written[row]) < decoding.max_new_tokens

    follow(scorable, prompts, lambda _, logits: logits.float().argmax(-1).tolist(), goes_on, prompted=prompted)
    return written


def _together(
    scorable: Scorable,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    stop_ids: Sequence[int],
    heard: Callable[[int], None] | None,
) -> list[list[int]]:
    """Every other decoding, by transformers."""
    from transformers import GenerationConfig

    causal = scorable.kind == "causal"
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=decoding.draws,
        num_beams=decoding.num_beams,
        repetition_penalty=decoding.repetition_penalty,
        eos_token_id=list(stop_ids),
        pad_token_id=scorable.pad_id,
        use_cache=True,
        **(_sampling(decoding) if decoding.draws else {}),
        **({} if causal else {"decoder_start_token_id": scorable.start_id}),
    )
    ids, mask = pad(prompts, scorable.pad_id, scorable.device, left=causal)
    live = _Telling(heard) if heard and decoding.num_beams == 1 else None
    with _no_config_of_its_own(scorable):
        output = scorable.model.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, streamer=live
        )
    new = output[:, ids.shape[1] :] if causal else output[:, 1:]
    rows = [_until_stop(row, stop_ids) for row in new.tolist()]
    if heard and live is None:
        for token in rows[0]:
            heard(token)
    return rows


class _Telling:
    """What transformers calls a streamer: it is put the prompt first, then each new token."""

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._heard = heard
        self._prompted = False

    def put(self, ids: Tensor) -> None:
        if self._prompted:
            self._heard(int(ids))
        self._prompted = True

    def end(self) -> None:
        """Called after the last token."""


def _sampling(decoding: Decoding) -> dict[str, float | int]:
    return {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": decoding.top_k}


def _until_stop(ids: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in stop_ids:
            return list(ids[: position + 1])
    return list(ids)


@contextlib.contextmanager
def _no_config_of_its_own(scorable: Scorable) -> Iterator[None]:
    """Hides the model's generation config, from which transformers fills in whatever a caller leaves open."""
    from transformers import GenerationConfig

    own = {m: m.generation_config for m in scorable.model.modules() if "generation_config" in vars(m)}
    for module in own:  # an adapter's wrapper passes reading on to the model inside, but not writing
        module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for module, config in own.items():
            module.generation_config = config
