"""The folder of methods as a registry: names, light modules, and what made a saved adapter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from inlay import adapters


@pytest.mark.parametrize("name", adapters.names())
def test_a_method_module_imports_nothing_heavy(name):
    code = (
        f"import sys; from inlay import adapters; method = adapters.find({name!r}); "
        "print([m for m in ('torch', 'transformers', 'peft', 'numpy', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_method_is_answered_with_the_closest():
    with pytest.raises(LookupError, match="did you mean `bottleneck`"):
        adapters.find("botleneck")


@pytest.mark.parametrize("name", ["lily", "QA-LoRA", "multitask_prompt_tuning", "boft"])
def test_a_method_that_is_not_offered_is_refused_with_the_reason(name):
    with pytest.raises(LookupError, match=rf"`{name}` is not offered: [^\n]+$"):
        adapters.find(name)


def test_nothing_that_is_refused_is_offered():
    from inlay.adapters._refused import REASONS

    assert not REASONS.keys() & {name.replace("_", "") for name in adapters.names()}


@pytest.mark.parametrize(
    ("config", "method", "settled"),
    [
        ({"peft_type": "LORA", "r": 8, "use_dora": False, "bias": "none"}, "lora", {"r": 8}),
        ({"peft_type": "LORA", "r": 8, "use_dora": True}, "dora", {"r": 8}),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 5, "num_layers": 2}, "prefix", {"num_virtual_tokens": 5}),
        ({"method": "full"}, "full", {}),
        ({"method": "none"}, "none", {}),
    ],
)
def test_a_saved_adapter_is_recognized(config, method, settled, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert adapters.recognize(tmp_path) == (method, settled)


@pytest.mark.parametrize("config", [{}, {"peft_type": "LILY"}, {"peft_type": 3}, {"method": "other"}])
def test_an_adapter_of_no_known_method_is_refused_by_its_kind(config, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="known methods: adalora"):
        adapters.recognize(tmp_path)
