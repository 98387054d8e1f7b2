"""Generation: what is written depends on prompt and weights alone, not on batches, pads or files beside them."""

from __future__ import annotations

import json
import shutil

import pytest
import scorables
import torch
from method_cases import methods_on
from transformers import GenerationConfig

from inlay.eval import Decoding, Reply, Turn
from inlay.eval.generate import generate, generate_and_score
from inlay.eval.likelihood import score_answers
from inlay.eval.score import measure_noise
from inlay.tuner.data.rendering import Renderer

GREEDY = Decoding(max_new_tokens=8)
PROMPTS = scorables.ids(16, (3, 40))
NEVER = (511,)  # a token of no meaning, so that rows go on to the end
HOSTILE = {
    "do_sample": True,
    "temperature": 5.0,
    "top_k": 3,
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 9,
    "min_length": 60,
    "min_new_tokens": 60,
    "max_length": 4,
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(10, 250)),
    "begin_suppress_tokens": list(range(250, 400)),
    "bad_words_ids": [[11], [12]],
    "sequence_bias": [[[17], 9.0]],
    "renormalize_logits": True,
    "eos_token_id": [33, 34],
    "num_beams": 3,
}


def written(scorable, prompts, size, stop_ids=NEVER, decoding=GREEDY):
    return generate(scorable, prompts, decoding, stop_ids=stop_ids, batch_size=size)


@pytest.mark.parametrize(("shape", "name"), [(s, name) for s in ("llama", "gpt2", "t5") for name in methods_on(s)])
def test_s9_batched_equals_single(name, shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape), name)
    alone = written(scorable, PROMPTS, 1)
    assert all(len(row) == GREEDY.max_new_tokens for row in alone)
    assert len(set(map(tuple, alone))) >= len(PROMPTS) // 2, "the rows must differ for their equality to mean something"
    assert written(scorable, PROMPTS, 16) == alone
    assert written(scorable, PROMPTS, 5) == alone


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt_neo", "gpt_neox", "qwen3", "gemma2", "gemma3_text", "t5"])
@pytest.mark.parametrize("name", ["none", "lora", "prefix", "prompt", "bottleneck", "ia3"])
def test_s14_a_prompt_that_is_read_once_for_reply_and_answer(name, shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape), name)
    prompts = scorables.ids(8, (3, 90))
    answers = [*scorables.ids(7, (1, 24), seed=3), (7,)]
    rows, sums = generate_and_score(scorable, prompts, answers, GREEDY, stop_ids=NEVER, batch_size=3)
    assert rows == written(scorable, prompts, 3)
    alone = [score_answers(scorable, [pair], batch_size=1)[0] for pair in zip(prompts, answers, strict=True)]
    assert sums == pytest.approx(alone, rel=1e-5)
    assert len(set(sums)) == len(sums)


@pytest.mark.parametrize("shape", ["gpt_neo", "gpt_neox", "qwen3", "gemma2", "gemma3_text"])
def test_s9_batched_equals_single_on_other_architectures(shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape))
    prompts = scorables.ids(8, (3, 90))  # beyond the windows of gpt_neo and gemma
    assert written(scorable, prompts, 8) == written(scorable, prompts, 1)


def greedy_by_transformers(scorable, prompt, stop_ids):
    """One prompt at a time, without pads, by the model's own `generate`."""
    config = GenerationConfig(
        max_new_tokens=GREEDY.max_new_tokens, do_sample=False, eos_token_id=list(stop_ids), pad_token_id=scorable.pad_id
    )
    ids = torch.tensor([prompt])
    with torch.no_grad():
        return scorable.model.eval().generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[
            0, len(prompt) :
        ].tolist()


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt_neo", "gpt_neox", "qwen3", "gemma2", "gemma3_text"])
@pytest.mark.parametrize("name", ["none", "lora", "prefix", "prompt", "bottleneck"])
def test_rows_that_end_at_different_times_are_what_transformers_writes(name, shape, tiny_models):
    scorable = scorables.scorable(tiny_models(shape), name)
    prompts = scorables.ids(8, (1, 90))
    ends = {written(scorable, prompts, 8)[i][2 * i % 7] for i in (0, 3, 5)}
    expected = [greedy_by_transformers(scorable, prompt, ends) for prompt in prompts]
    assert len(set(map(len, expected))) > 1, "some row must end before another"
    assert written(scorable, prompts, 8, stop_ids=tuple(ends)) == expected


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_s12_no_pads_between_prepended_tokens_and_text(shape, tiny_models):
    right = scorables.prompt_tuned(tiny_models(shape), "tokens")
    alone = written(right, PROMPTS, 1)
    assert written(right, PROMPTS, 16) == alone
    assert alone != written(scorables.scorable(tiny_models(shape)), PROMPTS, 1), "the virtual tokens must matter"
    careless = scorables.prompt_tuned(tiny_models(shape), "nothing")
    assert written(careless, PROMPTS, 16) != alone, "without the guard, pads come between virtual tokens and text"


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
def test_s10_pad_may_be_the_end_token(shape, tiny_models):
    expected = written(scorables.scorable(tiny_models(shape)), PROMPTS, 1)
    end = expected[3][4]  # a token that the model does write
    as_end = scorables.scorable(tiny_models(shape), pad_id=end)
    prompts = [*PROMPTS[:8], (end, *PROMPTS[8]), (*PROMPTS[9], end, end)]  # also a real end token at either side
    alone = written(as_end, prompts, 1, stop_ids=(end,))
    assert written(as_end, prompts, 16, stop_ids=(end,)) == alone
    assert alone[3] == expected[3][: expected[3].index(end) + 1], "up to and with the end token, no pad after it"
    lengths = {len(row) for row in alone}
    assert len(lengths) > 1
    assert all(end not in row[:-1] for row in alone)


@pytest.mark.parametrize(
    ("shape", "name"), [(s, name) for s in ("llama", "t5") for name in methods_on(s) if name != "full"]
)
def test_s22_a_generation_config_of_the_model_changes_nothing(name, shape, tiny_models):
    prompts = PROMPTS[:6]
    scorable = scorables.scorable(tiny_models(shape), name)
    expected = written(scorable, prompts, 4)
    own = GenerationConfig(**HOSTILE)
    scorable.inner.generation_config = scorable.model.generation_config = own
    scorables.plain(scorable).generation_config = own
    assert written(scorable, prompts, 4) == expected
    assert scorables.plain(scorable).generation_config is own, "the model is given back as it was"
    torch.manual_seed(0)
    one = torch.tensor([prompts[2]])
    own.decoder_start_token_id = 1
    naive = scorable.model.generate(input_ids=one, attention_mask=torch.ones_like(one), max_new_tokens=8)
    assert naive[0, -8:].tolist() != expected[2], "without the guard, the config decides"


@pytest.mark.parametrize("content", [json.dumps(HOSTILE), '{"suppress_tokens": [7], "forced_bos_token_id": 7}', "{"])
@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_s22_a_generation_config_on_disk_is_not_read(content, shape, tiny_models, tmp_path):
    expected = written(scorables.scorable(tiny_models(shape)), PROMPTS[:6], 4)
    folder = shutil.copytree(tiny_models(shape), tmp_path / "hostile")
    (folder / "generation_config.json").write_text(content)
    assert written(scorables.scorable(folder), PROMPTS[:6], 4) == expected


def test_s23_sampling_depends_on_its_seed_alone_and_leaves_the_generator(tiny_models):
    scorable = scorables.scorable(tiny_models("llama"))
    sampled = Decoding(max_new_tokens=8, do_sample=True, temperature=1.5, seed=4)
    torch.manual_seed(1)
    first = written(scorable, PROMPTS[:4], 4, decoding=sampled)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(2)
    assert written(scorable, PROMPTS[:4], 4, decoding=sampled) == first
    other = Decoding(max_new_tokens=8, do_sample=True, temperature=1.5, seed=5)
    assert written(scorable, PROMPTS[:4], 4, decoding=other) != first
    assert written(scorable, PROMPTS[:4], 4) != first


def test_progress_tells_finished_prompts(tiny_models):
    heard = []
    scorable = scorables.scorable(tiny_models("llama"))
    generate(scorable, PROMPTS[:7], Decoding(max_new_tokens=1), stop_ids=NEVER, batch_size=3, progress=heard.append)
    assert heard == [3, 6, 7]


@pytest.mark.parametrize("bits", [32, 16])
def test_s24_the_noise_of_batching_is_measured(bits, tiny_models):
    base = scorables.opened(tiny_models("llama"), bits, "auto")
    assert base.compute_dtype == {32: "fp32", 16: "bf16"}[bits]
    found = scorables.adapted(base, "none")
    scorable = scorables.Scorable(found.model, found.inner, "causal", "nothing", scorables.PAD)
    texts = ["sun " * n + "cold" for n in (1, 3, 9, 2, 14, 30, 5, 21, 8, 8)]
    examples = [Reply(str(i), (Turn("prompt", text),), (text[::-1],)) for i, text in enumerate(texts)]
    render = Renderer(base.tokenizer, "causal")
    noise = measure_noise(scorable, examples, render, decoding=Decoding(max_new_tokens=24), batch_size=8)
    assert noise.rows == 8
    if bits == 32:
        assert noise.identical_texts == 8
        assert noise.nll_relative < 1e-6
    else:
        assert noise.nll_relative > 1e-6
        assert noise.identical_texts <= 8
