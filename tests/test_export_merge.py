"""S25, S26: in memory = reloaded = exported, for every mergeable method and kind of base.

One new process, which knows only transformers, opens the exports of a session one after the other.
"""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import method_cases
import pytest
import torch
from method_cases import CASES, batch, logits, train
from stranger import Stranger

from inlay.tuner import base as bases
from inlay.tuner import model_files
from inlay.tuner.architecture import auto_class
from inlay.tuner.base import Quantization
from inlay.tuner.export import folder as folders
from inlay.tuner.export import merge, proof
from inlay.tuner.export.merge import merged_tensors
from inlay.tuner.quantization import compute_in

HELD = {
    "nf4-double": Quantization(4, "nf4", True, "fp32"),
    "nf4": Quantization(4, "nf4", False, "fp32"),
    "fp4": Quantization(4, "fp4", True, "fp32"),
    "nf4-bf16": Quantization(4, "nf4", True, "bf16"),
    "bf16": Quantization(16, compute_dtype="bf16"),
    "fp32": Quantization(32),
}


@dataclass(frozen=True)
class Trained:
    """A base's files with an adapter of one case trained on it, as it was held; and what the model that was trained
    says, computed in fp32."""

    case: method_cases.Case
    files: model_files.ModelFiles
    folder: Path
    held: Quantization
    in_memory: torch.Tensor | None = None

    def setting(self, held: Quantization | None = None) -> SimpleNamespace:
        facts = bases.read_facts(bases.read_config(self.files), (held or self.held).bits)
        method = self.case.method
        return SimpleNamespace(
            files=self.files,
            facts=facts,
            tokenizer=bases.read_tokenizer(self.files),
            method=method,
            trainable=method.trainable(facts),
        )

    def opened(self) -> bases.Base:
        setting = self.setting()
        floats = setting.method.targets(setting.facts) if setting.method.needs_float_weights else ()
        return bases.open_base(
            self.files, self.held, setting.facts, setting.tokenizer, float_targets=floats
        )

    def reference(self) -> torch.Tensor:
        """Logits of base and adapter, opened from disk, computed in fp32."""
        adapted = self.case.method.load(self.folder, self.opened().model, self.setting().facts)
        compute_in(adapted.model, torch.float32)
        return logits(self.case, adapted.model)

    def merged(self, held: Quantization | None = None) -> torch.nn.Module:
        """A plain model with the merged tensors."""
        tensors = dict(merged_tensors(self.setting(held), self.folder, held or self.held))
        return plain(self.files, tensors)


    def exported(self, folder: Path) -> Path:
        """The merged model's folder, written as an export's is."""
        folders.write_weights(folder, merged_tensors(self.setting(), self.folder, self.held), "fp32")
        folders.write_config(folder, self.setting(), "fp32")
        return folder


def plain(files: model_files.ModelFiles, tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    """transformers' own model with these tensors, tied ones tied."""
    config = bases.read_config(files)
    model = auto_class(config).from_config(config, dtype=torch.float32)
    found = model.load_state_dict(tensors, strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= set(model.all_tied_weights_keys)
    model.tie_weights()
    return model.eval()


@pytest.fixture(scope="module")
def trained(tiny_models, tmp_path_factory):
    def trained_(case: method_cases.Case, held: str, *, evaluate: bool = False) -> Trained:
        files = model_files.locate(str(tiny_models(case.shape)))
        made = Trained(case, files, tmp_path_factory.mktemp("adapter"), HELD[held])
        adapted = case.method.attach(made.opened().model, made.setting().facts, seed=0, steps=50)
        train(case, adapted, 3, evaluate=evaluate)
        adapted.save(made.folder)
        compute_in(adapted.model, torch.float32)
        return replace(made, in_memory=logits(case, adapted.model))

    return trained_


@pytest.fixture(scope="session")
def stranger():
    process = Stranger()
    yield process
    process.close()


def matrix():
    """Each mergeable method on its drawn shape and the default quantization; all others are slow."""
    cases = [case for case in CASES if case.method.mergeable and case.bits == 32 and case.name != "none"]
    return pytest.mark.parametrize(
        ("case", "held"),
        [
            pytest.param(
                case, held, id=f"{case}-{held}",
                marks=() if case.drawn and held == "nf4-double" else pytest.mark.slow,
            )
            for case in cases
            for held in HELD
        ],
    )  # fmt: skip


@matrix()
def test_s25_export_equals_benchmarked(case, held, trained, stranger, tmp_path):
    made = trained(case, held)
    (tmp_path / "export").mkdir()
    wanted = made.reference()
    found = stranger.logits(made.exported(tmp_path / "export"), batch(case), tmp_path)
    base = bases.open_base(made.files, made.held, made.setting().facts, made.setting().tokenizer)
    compute_in(base.model, torch.float32)
    assert (wanted - logits(case, base.model)).abs().max() > 1e-3, "the adapter must matter"
    for other in (made.in_memory, found):
        apart = proof.distance(list(wanted), list(other))
        assert apart.same_top == 1
        assert apart.kl_mean < proof.SAME_KL


def case_of(name: str, shape: str) -> method_cases.Case:
    return next(case for case in CASES if (case.name, case.shape, case.bits) == (name, shape, 32) and not case.options)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
def test_s25_the_original_weights_make_another_model(shape, trained):
    """What most tools do: merge into the weights that the adapter has never seen."""
    case = case_of("lora", shape)
    made = trained(case, "nf4-double")
    apart = proof.distance(list(made.reference()), list(logits(case, made.merged(Quantization(32)))))
    assert apart.kl_mean > 1e-3


def test_s26_merging_after_evaluations_equals_merging_fresh(trained):
    """On a CPU with AVX512-BF16 an evaluation repacks 4-bit layers, from which garbage is merged."""
    case = case_of("lora", "llama")
    fresh, used = trained(case, "nf4-double"), trained(case, "nf4-double", evaluate=True)
    for one, two in zip(fresh.merged().parameters(), used.merged().parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("held", HELD)
def test_s26_without_an_adapter_the_merge_is_the_dequantized_base(held, tiny_models, tmp_path):
    case = case_of("none", "gpt2")
    made = Trained(case, model_files.locate(str(tiny_models("gpt2"))), tmp_path, HELD[held])
    case.method.attach(made.opened().model, made.setting().facts, seed=0, steps=0).save(tmp_path)
    torch.testing.assert_close(logits(case, made.merged()), made.reference(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ia3", "oft"))])
def test_one_merged_layer_is_held_at_a_time(name, trained, monkeypatch):
    """Or merging would take the whole model in fp32."""
    made, plain_layer, held = trained(case_of(name, "llama"), "nf4-double"), merge._plain, []

    def noted(*arguments):
        layer = plain_layer(*arguments)
        held.append(weakref.ref(layer))
        return layer

    monkeypatch.setattr(merge, "_plain", noted)
    most = 0
    for _ in merge.merged_tensors(made.setting(), made.folder, made.held):
        gc.collect()
        most = max(most, sum(ref() is not None for ref in held))
    assert len(held) > 10
    assert most <= 2
