"""Prefix tuning: where it starts, what a projection leaves on disk, and padding."""

from __future__ import annotations

import math

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from inlay.adapters import Training
from inlay.adapters.prefix import Prefix
from inlay.tuner import base, model_files

IDS = torch.arange(5, 25).reshape(2, 10)
TEXTS = (
    "Tom had a red ball. He ran to the park and played with his dog until it was dark.",
    "Once upon a time there was a little girl. She liked to sing and to help her mother in the garden.",
)


def facts_of(folder):
    return base.read_facts(base.read_config(model_files.locate(str(folder))), 32)


def opened(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def attach(folder, *, seed: int = 0, **options):
    return Prefix(Prefix.Options(**options)).attach(opened(folder), facts_of(folder), seed=seed, steps=50)


def logits(model, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt_neox", "gpt_neo", "qwen3", "gemma2", "gemma3_text"])
@pytest.mark.parametrize("projection", [False, True])
def test_starts_as_the_base_after_a_short_document(shape, projection, tiny_models):
    folder, tokens = tiny_models(shape), 6
    adapted = attach(folder, num_virtual_tokens=tokens, prefix_projection=projection, seed=3)
    plain = opened(folder)
    # The same document, as the docstring describes it: random tokens between two end-of-text tokens.
    document = torch.randint(plain.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(3))
    document[0, 0] = document[0, -1] = plain.config.eos_token_id
    expected = logits(plain, torch.cat([document.expand(len(IDS), -1), IDS], 1))[:, tokens:]
    torch.testing.assert_close(logits(adapted.model), expected, atol=2e-3, rtol=1e-3)


def test_the_start_leaves_a_pretrained_model_whole(shared_models):
    folder = shared_models / "tinytalk-3m"
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def perplexity(model) -> float:
        nll, count = 0.0, 0
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text).input_ids])
            scores = logits(model, ids)[0, :-1].log_softmax(-1)
            nll -= scores.gather(1, ids[0, 1:, None]).sum().item()
            count += ids.shape[1] - 1
        return math.exp(nll / count)

    untouched = perplexity(opened(folder))
    usual = get_peft_model(opened(folder), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=16))
    for projection in (False, True):
        assert perplexity(attach(folder, prefix_projection=projection).model) < 2 * untouched
    assert perplexity(usual) > 50 * untouched


def test_a_projection_is_folded_into_what_is_saved(tiny_models, tmp_path):
    folder = tiny_models("llama")
    options = {"num_virtual_tokens": 5, "prefix_projection": True, "encoder_hidden_size": 12}
    adapted = attach(folder, **options)
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    adapted.save(tmp_path)
    assert {n: t.shape for n, t in load_file(tmp_path / "adapter_model.safetensors").items()} == {
        "prompt_embeddings": (5, 2 * 2 * 2 * 16)
    }
    by_peft = PeftModel.from_pretrained(opened(folder), tmp_path)
    assert torch.equal(logits(by_peft), logits(adapted.model))
    loaded = Prefix(Prefix.Options(**options)).load(tmp_path, opened(folder), facts_of(folder))
    assert torch.equal(logits(loaded.model), logits(adapted.model))
    assert len(loaded.state()) == 1  # a plain prefix now, which trains on as one
    loaded.model.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert all(weight.grad is not None for weight in loaded.model.parameters() if weight.requires_grad)


def test_s13_scores_the_positions_of_the_text_alone(tiny_models):
    adapted = attach(tiny_models("llama"), num_virtual_tokens=7)
    assert logits(adapted.model).shape[:2] == IDS.shape


def test_right_padding_changes_no_score(tiny_models):
    model = attach(tiny_models("llama"), num_virtual_tokens=7).model.eval()
    padded = torch.cat([IDS, torch.ones(2, 5, dtype=torch.long)], 1)
    mask = torch.cat([torch.ones_like(IDS), torch.zeros(2, 5, dtype=torch.long)], 1)
    with torch.no_grad():
        together = model(input_ids=padded, attention_mask=mask).logits[:, : IDS.shape[1]]
    torch.testing.assert_close(together, logits(model), atol=1e-3, rtol=1e-4)


def test_a_width_without_a_projection_is_an_error():
    with pytest.raises(ValidationError, match="no effect without prefix_projection"):
        Prefix.Options(encoder_hidden_size=8)


def test_a_prefix_as_long_as_the_context_is_refused(tiny_models):
    facts = facts_of(tiny_models("llama"))
    reason = Prefix(Prefix.Options(num_virtual_tokens=256)).refusal(facts, Training(gradient_checkpointing=False))
    assert reason == "256 virtual tokens leave no room for text in 256 positions"
