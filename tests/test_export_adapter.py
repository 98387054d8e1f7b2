"""In memory = reloaded = exported, where the adapter stays beside its base and is put on it without inlay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import method_cases
import pytest
import torch
from method_cases import CASES, Case, batch, logits, train
from safetensors.torch import load_file, save_file

from inlay.tuner.base import Quantization, read_config, read_facts, read_tokenizer
from inlay.tuner.export import adapter_part
from inlay.tuner.export.loader import has_loader, loader
from inlay.tuner.model_files import locate
from inlay.tuner.problems import RequestError

T5_START = 1  # a decoder's first token
# PEFT puts these on no layer of GPT-2's own; quantized, those are of another kind. All of them can be merged.
NOT_ON_GPT2 = ("miss", "oft", "road", "shira")
# Opens one export after the other by its `load.py`, and writes what each answers to the rows in `asked`.
ANYONE = """
import importlib.util, json, os, sys, traceback
import torch
from safetensors.torch import load_file, save_file
for line in sys.stdin:
    folder, os.environ["BASE"], asked, said = json.loads(line)
    fault = ""
    try:
        spec = importlib.util.spec_from_file_location("load", folder + "/load.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model, tokenizer = module.load()
        with torch.no_grad():
            save_file({"logits": model(**load_file(asked)).logits.contiguous()}, said)
        assert not model.training
        assert not [name for name in sys.modules if name.startswith("inlay")]
    except Exception:
        fault = traceback.format_exc()
    print(json.dumps(fault), flush=True)
"""


@pytest.fixture(scope="module")
def anyone():
    """A function (export, base, rows) -> logits, computed in a process that knows nothing of inlay."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", ANYONE], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def ask(export: Path, base: Path, rows: dict[str, torch.Tensor]) -> torch.Tensor:
        asked, said = export.with_name("asked"), export.with_name("said")
        save_file({name: tensor.clone() for name, tensor in rows.items()}, asked)
        process.stdin.write(json.dumps([str(export), str(base), str(asked), str(said)]) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == ""
        return load_file(said)["logits"]

    yield ask
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@pytest.fixture(scope="session")
def open_base(tiny_models):
    return method_cases.opening(tiny_models)


def source_of(case: Case, adapter: Path, base: Path) -> SimpleNamespace:
    """As much of an export's source as writes an adapter."""
    files = locate(str(base))
    setting = SimpleNamespace(
        recipe=SimpleNamespace(adapter=SimpleNamespace(method=case.name)),
        method=case.method,
        files=files,
        facts=read_facts(read_config(files), case.bits),
        tokenizer=read_tokenizer(files),
        task=SimpleNamespace(answers="generate"),
    )
    quantization = Quantization(bits=case.bits, compute_dtype="fp32")
    return SimpleNamespace(setting=setting, adapter=adapter, quantization=quantization, formatted=False)


def loaded_by_anyone():
    """Each method that cannot be merged on its drawn shape in 4 bits; all others that have a loader are slow."""
    cases = [c for c in CASES if (c.method.peft_type or c.name == "mam") and not c.method.needs_float_weights]
    cases = [c for c in cases if not (c.name in NOT_ON_GPT2 and c.shape == "gpt2" and c.bits == 32)]
    fast = {c for c in cases if c.drawn and c.bits == 4 and not c.method.mergeable}
    marked = [pytest.param(c, id=str(c), marks=() if c in fast else pytest.mark.slow) for c in cases]
    return pytest.mark.parametrize("case", marked)


def without_labels(case: Case) -> dict[str, torch.Tensor]:
    """The same rows; of T5, the decoder's tokens in the place of those that it is to say."""
    rows = batch(case)
    labels = rows.pop("labels")
    if case.shape != "t5":
        return rows
    return rows | {"decoder_input_ids": torch.cat([torch.full_like(labels[:, :1], T5_START), labels[:, :-1]], dim=1)}


@loaded_by_anyone()
def test_in_memory_equals_reloaded_equals_exported(case, open_base, anyone, tiny_models, tmp_path):
    opened = open_base(case)
    adapted = case.method.attach(opened.model, opened.facts, seed=0, steps=50)
    untouched = logits(case, open_base(case).model)
    train(case, adapted, 3)
    adapted.save(tmp_path / "adapter")
    in_memory = logits(case, adapted.model)
    of_text = in_memory[:, -untouched.shape[1] :]  # behind virtual tokens
    assert (of_text - untouched).abs().max() > 1e-3, "the adapter must matter"
    again = open_base(case)
    reloaded = case.method.load(tmp_path / "adapter", again.model, again.facts)
    assert torch.equal(logits(case, reloaded.model), in_memory)
    base = tiny_models(case.shape)
    (tmp_path / "export").mkdir()
    adapter_part.write_adapter_part(source_of(case, tmp_path / "adapter", base), tmp_path / "export")
    exported = anyone(tmp_path / "export", base, without_labels(case))
    torch.testing.assert_close(exported, in_memory, atol=1e-5, rtol=1e-5)
    assert str(tmp_path).encode() not in (tmp_path / "export" / "load.py").read_bytes()


@pytest.mark.parametrize("name", ["loha", "full", "none"])
def test_what_nobody_can_load_without_inlay_is_refused(name, tiny_models, tmp_path):
    case = next(case for case in CASES if case.name == name and case.shape == "llama" and case.bits == 4)
    source = source_of(case, tmp_path, tiny_models("llama"))
    assert not has_loader(source.setting)
    with pytest.raises(RequestError, match="export it with --format merged"):
        adapter_part.refuse_adapter(source)


def test_no_name_of_a_base_runs_as_code(tiny_models, tmp_path):
    base = shutil.copytree(tiny_models("llama"), tmp_path / '"""; raise SystemExit("run") #')
    case = next(case for case in CASES if case.name == "lora" and case.shape == "llama" and case.bits == 4)
    scope = {"__file__": str(tmp_path / "load.py"), "__name__": "load"}
    exec(compile(loader(source_of(case, tmp_path, base)), "load.py", "exec"), scope)
    assert scope["BASE"] == ""
