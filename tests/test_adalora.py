"""AdaLoRA: ranks fall to the target while it trains, by importance, and what was pruned stays pruned."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from training_runs import Log, attaching, make_rows, train
from transformers import AutoModelForCausalLM

from inlay.adapters import Training
from inlay.adapters.adalora import Adalora
from inlay.tuner import base, model_files

IDS = torch.arange(5, 25).reshape(2, 10)


@pytest.fixture
def attach(tiny_models):
    return attaching(tiny_models)


def facts_of(folder):
    return base.read_facts(base.read_config(model_files.locate(str(folder))), 32)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("bits", [32, 4])
def test_s31_reaches_target_rank(bits, attach):
    adapted = attach("adalora", bits=bits, steps=20)
    assert set(adapted.ranks().values()) == {0}  # e starts at zero
    train(adapted, max_steps=20)
    ranks = adapted.ranks().values()
    assert sum(ranks) == 2 * len(ranks)
    assert len(set(ranks)) > 1


def test_ranks_fall_between_the_first_and_the_last_pruning(attach):
    adapted, seen = attach("adalora", steps=20, tinit=5, tfinal=5), []
    log = Log({step: lambda: seen.append(sum(adapted.ranks().values())) for step in range(1, 21)})
    train(adapted, max_steps=20, log=log)
    layers = len(adapted.ranks())
    assert seen[:5] == [6 * layers] * 5
    assert seen == sorted(seen, reverse=True)
    assert set(seen[14:]) == {2 * layers}


def test_the_penalty_keeps_the_factors_orthogonal_and_out_of_the_logged_loss(attach):
    def distance(adapted) -> float:
        return float(adapted.penalty().detach())

    logs = []
    for weight in (0.0, 5.0):
        adapted, log = attach("adalora", steps=20, orth_reg_weight=weight), Log()
        train(adapted, max_steps=20, log=log)
        adapted.model.active_peft_config.orth_reg_weight = 1.0
        logs.append((log.losses[0], distance(adapted)))
    assert logs[0][0] == logs[1][0]
    assert logs[1][1] < logs[0][1] / 2


def test_peft_loads_what_was_saved_and_a_loaded_one_keeps_its_ranks(attach, tiny_models, tmp_path):
    folder, adapted = tiny_models("llama"), attach("adalora", steps=20)
    train(adapted, max_steps=20)
    adapted.save(tmp_path)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path)
    assert torch.equal(logits(plain), logits(adapted.model))
    method = Adalora(Adalora.Options(init_r=6, target_r=2))
    loaded = method.load(tmp_path, AutoModelForCausalLM.from_pretrained(folder), facts_of(folder))
    ranks = loaded.ranks()
    assert ranks == adapted.ranks()
    train(loaded, make_rows(), max_steps=4)
    assert loaded.ranks() == ranks
    assert not torch.equal(logits(loaded.model), logits(adapted.model))


def test_a_schedule_that_leaves_no_step_to_prune_in_is_refused(tiny_models):
    facts = facts_of(tiny_models("llama"))
    method = Adalora(Adalora.Options(tinit=10, tfinal=10))
    assert "none of 20 steps" in method.refusal(facts, Training(gradient_checkpointing=False, steps=20))
    assert method.refusal(facts, Training(gradient_checkpointing=False, steps=21)) is None
    with pytest.raises(ValueError, match="for a fixed rank use lora"):
        Adalora.Options(init_r=4, target_r=4)
