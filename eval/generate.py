"""Generation in batches that gives, in fp32, what generating one prompt at a time gives."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from inlay.eval import Decoding
from inlay.eval.scoring import Scorable, batches, observing, pad


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
    would change the result (between tokens that an adapter prepends and the text), a batch holds one length only.

    Args:
        prompts: token ids; for a sequence-to-sequence model, of the encoder.
        stop_ids: generation of a row ends with the first of these.
        progress: called with the number of finished prompts.

    Returns:
        The new ids of each prompt, the stop token included where there is one, pads after it left out.
    """
    import torch
    from transformers import GenerationConfig

    start = {"decoder_start_token_id": scorable.start_id} if scorable.kind == "seq2seq" else {}
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=decoding.do_sample,
        num_beams=decoding.num_beams,
        repetition_penalty=decoding.repetition_penalty,
        eos_token_id=list(stop_ids),
        pad_token_id=scorable.pad_id,
        use_cache=True,
        **(_sampling(decoding) if decoding.do_sample else {}),
        **start,
    )
    results: list[list[int]] = [[] for _ in prompts]
    # A repetition penalty counts the pads of a prompt among the tokens that have occurred.
    unpadded = scorable.prepends == "tokens" or decoding.repetition_penalty != 1.0
    equal = unpadded and scorable.kind == "causal"
    done = 0
    with observing(scorable), _no_config_of_its_own(scorable), torch.random.fork_rng(enabled=decoding.do_sample):
        for batch in batches([len(p) for p in prompts], batch_size, equal=equal):
            ids, mask = pad(
                [prompts[i] for i in batch], scorable.pad_id, scorable.device, left=scorable.kind == "causal"
            )
            if decoding.do_sample:
                torch.manual_seed(decoding.seed + done)
            output = scorable.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            new = output[:, ids.shape[1] :] if scorable.kind == "causal" else output[:, 1:]
            for i, row in zip(batch, new.tolist(), strict=True):
                results[i] = _until_stop(row, stop_ids)
            done += len(batch)
            if progress:
                progress(done)
    return results


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
