"""A reply that is told token by token is the reply that is generated whole."""

from __future__ import annotations

import dataclasses
import itertools
from types import MappingProxyType

import pytest
import scorables
import torch

from inlay import adapters
from inlay.eval import Decoding
from inlay.eval.generate import generate, in_batches, stream
from inlay.eval.several import Writing, can_write, write_several

METHODS = ("none", "lora", "prefix", "prompt", "bottleneck")
GREEDY = Decoding(max_new_tokens=8)
DRAWN = Decoding(max_new_tokens=8, do_sample=True, temperature=1.5, top_k=50, seed=4)
BEAMS = Decoding(max_new_tokens=8, num_beams=3)
PENALIZED = Decoding(max_new_tokens=8, repetition_penalty=1.3)
PROMPT = scorables.ids(3, (9, 20))[1]
NEVER = (511,)
NOBODY = MappingProxyType({})


def told(scorable, decoding, stop_ids=NEVER) -> list[int]:
    heard: list[int] = []
    assert stream(scorable, PROMPT, decoding, stop_ids=stop_ids, heard=heard.append) == heard
    return heard


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN, BEAMS, PENALIZED], ids=Decoding.signature)
@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("name", METHODS)
def test_what_is_told_is_what_is_generated(name, shape, decoding, tiny_models):
    scorable = scorables.scorable(tiny_models(shape), name)
    (whole,) = generate(scorable, [PROMPT], decoding, stop_ids=NEVER, batch_size=1)
    assert told(scorable, decoding) == whole
    assert len(whole) == 8
    stop = whole[3]
    (ended,) = generate(scorable, [PROMPT], decoding, stop_ids=(stop,), batch_size=1)
    assert told(scorable, decoding, stop_ids=(stop,)) == ended
    assert ended[-1] == stop or len(ended) == 8


@pytest.mark.parametrize("name", adapters.names())
def test_a_listener_that_ends_a_reply_leaves_the_model_as_it_was(name, tiny_models):
    scorable = scorables.scorable(tiny_models("llama"), name)
    expected = told(scorable, GREEDY)
    modes = [module.training for module in scorable.model.modules()]
    for decoding in (GREEDY, DRAWN):
        heard: list[int] = []

        def enough(token: int, heard: list[int] = heard) -> None:
            heard.append(token)
            if len(heard) == 3:
                raise KeyboardInterrupt

        state = torch.random.get_rng_state()
        with pytest.raises(KeyboardInterrupt):
            stream(scorable, PROMPT, decoding, stop_ids=NEVER, heard=enough)
        assert len(heard) == 3
        assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in scorable.model.modules()] == modes
    assert torch.is_grad_enabled()
    assert told(scorable, GREEDY) == expected


COLD = dataclasses.replace(DRAWN, temperature=1e-300)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_a_temperature_too_small_to_divide_by_takes_the_likeliest(shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape))
    assert told(scorable, COLD) == told(scorable, GREEDY)


PROMPTS = scorables.ids(6, (3, 40))
DECODINGS = [GREEDY, DRAWN, dataclasses.replace(GREEDY, max_new_tokens=3), DRAWN, GREEDY, DRAWN]


def several(scorable, first: list[int], joins=NOBODY, *, stop_ids=NEVER, enough=99) -> dict[int, list[int]]:
    """Replies to the prompts with these indices; others join after so many tokens."""
    written: dict[int, list[int]] = {}
    ended: list[int] = []
    tokens = itertools.count(1)

    def writing(index: int) -> Writing:
        written[index] = []

        def heard(token: int) -> bool:
            assert index not in ended
            written[index].append(token)
            return len(written[index]) < enough

        return Writing(PROMPTS[index], DECODINGS[index], heard, lambda: ended.append(index))

    def joining(left: int) -> list[Writing]:
        assert left == len(written) - len(ended)
        return [writing(index) for index in joins.get(next(tokens), [])]

    write_several(scorable, [writing(index) for index in first], stop_ids=stop_ids, joining=joining)
    assert sorted(ended) == sorted(written)
    return written


def ready(name: str, shape: str, tiny_models):
    scorable = scorables.scorable(tiny_models(shape), name)
    if not can_write(scorable, GREEDY):
        pytest.skip("prompts of different lengths cannot be read together")
    return scorable


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("name", METHODS)
def test_each_of_several_replies_is_what_it_is_alone(name, shape, tiny_models):
    scorable = ready(name, shape, tiny_models)
    together = several(scorable, [0, 1, 2, 3, 4, 5])
    assert together == {i: several(scorable, [i])[i] for i in range(6)}
    greedy = generate(scorable, [PROMPTS[i] for i in (0, 2, 4)], GREEDY, stop_ids=NEVER, batch_size=1)
    assert [together[0], together[2], together[4]] == [greedy[0], greedy[1][:3], greedy[2]]
    assert len(set(map(tuple, together.values()))) == 6
    assert several(scorable, [0, 1, 2, 3], enough=2) == {i: together[i][:2] for i in range(4)}
    stop = together[1][4]
    assert several(scorable, [0, 1], stop_ids=(stop,))[1] == together[1][: together[1].index(stop) + 1]


JOINED = [*itertools.product(METHODS, ["llama", "gpt2", "gpt_neox"]), ("llama_adapter", "llama")]


@pytest.mark.parametrize(("name", "shape"), JOINED)
def test_a_reply_that_joins_others_is_what_it_is_alone(name, shape, tiny_models):
    scorable = ready(name, shape, tiny_models)
    alone = {i: several(scorable, [i])[i] for i in range(6)}
    assert several(scorable, [0], {2: [1, 2], 4: [3], 5: [4, 5]}) == alone
    assert several(scorable, [2], {3: [0], 4: [1, 3]}) == {i: alone[i] for i in (0, 1, 2, 3)}, "2 has ended before"


@pytest.mark.parametrize("name", ["none", "lora", "prefix", "prompt"])
def test_a_reply_that_was_stopped_goes_on_as_if_it_had_not_been(name, tiny_models):
    scorable = ready(name, "llama", tiny_models)
    for index in (0, 1):  # the likeliest, and drawn
        whole = several(scorable, [index])[index]
        for count in (1, 5):
            heard: list[int] = []
            writing = Writing(
                PROMPTS[index], DECODINGS[index], lambda t, to=heard: to.append(t) or True, print, whole[:count]
            )
            write_several(scorable, [writing], stop_ids=NEVER, joining=lambda _: [])
            assert heard == whole[count:]


def test_nobody_joins_where_attention_is_windowed(tiny_models):
    assert list(several(ready("none", "gemma2", tiny_models), [0], {2: [1]})) == [0]


def test_what_is_read_does_not_grow_with_those_that_have_gone(tiny_models):
    """Or a server that is never idle would hold the slots of all that it ever answered."""
    scorable = ready("none", "llama", tiny_models)
    widths: list[int] = []
    scorable.model.register_forward_pre_hook(
        lambda _, __, given: widths.append(given["attention_mask"].shape[1]), with_kwargs=True
    )
    first, *others = sorted((0, 1, 3, 4, 5), key=lambda i: -len(PROMPTS[i]))
    several(scorable, [first], {6 * n: [i] for n, i in enumerate(others, 1)})
    assert widths[0] == len(PROMPTS[first])
    assert len(widths) == 5 + 4 * 6 + 7
    assert max(widths) <= len(PROMPTS[first]) + 2 * 8


@pytest.mark.parametrize("decoding", [GREEDY, DRAWN], ids=Decoding.signature)
def test_batches_that_are_skipped_change_no_other(decoding, tiny_models):
    scorable = scorables.scorable(tiny_models("llama"))
    prompts = scorables.ids(11, (3, 40))
    decoding = dataclasses.replace(decoding, max_new_tokens=4)
    all_at_once = list(in_batches(scorable, prompts, decoding, stop_ids=NEVER, batch_size=3))
    assert len(all_at_once) == 4
    skip = {*all_at_once[0][0], *all_at_once[2][0], all_at_once[1][0][0]}
    some = list(in_batches(scorable, prompts, decoding, stop_ids=NEVER, batch_size=3, skip=skip))
    assert some == [all_at_once[1], all_at_once[3]]
