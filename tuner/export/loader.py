"""`load.py`: the program beside an exported adapter that puts it on its base, for anyone to run or to read.

It needs public packages alone. Where PEFT knows the method, PEFT loads it; bottleneck adapters, which PEFT has none of,
are put in by a function that the program brings along.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass

from inlay.tuner.export.bottlenecks import add_bottlenecks
from inlay.tuner.export.source import Source
from inlay.tuner.model_files import HUB_ID
from inlay.tuner.quantization import Quantization
from inlay.tuner.setting import Setting

LOADER = "load.py"
WEIGHTS = "load_file(HERE / 'adapter_model.safetensors')"


@dataclass(frozen=True)
class _Way:
    """How a method's adapter gets on the base.

    Attributes:
        needs: packages beside torch and transformers.
        imports: lines that import from these.
        lines: these turn `base` into `model`.
        brought: whether the program brings `add_bottlenecks` along.
    """

    needs: tuple[str, ...]
    imports: tuple[str, ...]
    lines: tuple[str, ...]
    brought: bool = False


def has_loader(setting: Setting) -> bool:
    """Whether anyone can load an adapter of this method on the base as it was held."""
    known = setting.method.peft_type or setting.recipe.adapter.method in _WAYS
    return bool(known) and not setting.method.needs_float_weights


def loader(source: Source) -> str:
    """The text of the program, with what it needs in its first lines."""
    setting, held = source.setting, source.quantization
    way = _WAYS.get(setting.recipe.adapter.method, _by_peft)(setting)
    kind = "AutoModelForSeq2SeqLM" if setting.facts.kind == "seq2seq" else "AutoModelForCausalLM"
    needs = ["torch", "transformers", *way.needs, *(["bitsandbytes"] if held.bits < 16 else [])]
    name = setting.files.name
    known = name if HUB_ID.fullmatch(name) and "/" in name else ""
    shown = re.sub(r"[^\w. -]", "_", name)  # it stands in the text of a program
    where = f"the base is {name} on the hub" if known else f"the base is `{shown}`: set BASE to its folder"
    dtype = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[held.compute_dtype]
    lines = [
        f'"""Loads the base with this adapter; {where}.',
        "",
        f"Needs: {', '.join(needs)}. Try it: python {LOADER} 'a message'",
        '"""',
        "",
        "import os",
        "import sys",
        "from pathlib import Path",
        "",
        "import torch",
        *way.imports,
        f"from transformers import {kind}, AutoTokenizer, BitsAndBytesConfig, GenerationConfig",
        "",
        "HERE = Path(__file__).resolve().parent",
        f"BASE = os.environ.get('BASE', {known!r})",
        f"REVISION = {setting.files.revision!r}",
        "",
        *(["", inspect.getsource(add_bottlenecks)] if way.brought else []),
        "",
        "def load():",
        *_opening(source, kind, dtype),
        "    if (HERE / 'generation_config.json').is_file():",
        "        base.generation_config = GenerationConfig.from_pretrained(HERE)",
        *(f"    {line}" for line in way.lines),
        "    return model.eval(), AutoTokenizer.from_pretrained(HERE)",
        "",
        "",
        "if __name__ == '__main__':",
        "    model, tokenizer = load()",
        *_asking(setting.facts.kind),
        "    print(tokenizer.decode(model.generate(**inputs.to(model.device))[0], skip_special_tokens=True))",
        "",
    ]
    return "\n".join(lines)


def _by_peft(setting: Setting) -> _Way:
    return _Way(("peft",), ("from peft import PeftModel",), ("model = PeftModel.from_pretrained(base, HERE)",))


def _by_hand(setting: Setting) -> _Way:
    """Bottleneck adapters."""
    options = setting.method.options
    return _Way(
        needs=("safetensors",),
        imports=("from safetensors.torch import load_file",),
        brought=True,
        lines=(
            f"model, tensors = base, {WEIGHTS}",
            f"add_bottlenecks(base, tensors, {_settled(setting, parallel=options.placement == 'parallel')})",
        ),
    )


def _by_both(setting: Setting) -> _Way:
    """MAM: a prefix by PEFT around a base with parallel bottleneck adapters."""
    facts, options = setting.facts, setting.method.options
    task, parts = ("SEQ_2_SEQ_LM", 2) if facts.kind == "seq2seq" else ("CAUSAL_LM", 1)
    return _Way(
        needs=("peft", "safetensors"),
        imports=(
            "from peft import PrefixTuningConfig, get_peft_model, set_peft_model_state_dict",
            "from safetensors.torch import load_file",
        ),
        brought=True,
        lines=(
            "parts = {'prefix': {}, 'bottleneck': {}}",
            f"for name, tensor in {WEIGHTS}.items():",
            "    part, _, name = name.partition('.')",
            "    parts[part][name] = tensor",
            "prefix = PrefixTuningConfig(",
            f"    task_type='{task}', num_virtual_tokens={options.num_virtual_tokens}, num_layers={facts.layers},",
            f"    token_dim={facts.kv_heads * facts.head_dim}, num_attention_heads={facts.kv_heads},",
            f"    num_transformer_submodules={parts},",
            ")",
            "model = get_peft_model(base, prefix)",
            "set_peft_model_state_dict(model, parts['prefix'])",
            f"add_bottlenecks(base, parts['bottleneck'], {_settled(setting, parallel=True)})",
        ),
    )


_WAYS = {"bottleneck": _by_hand, "mam": _by_both}


def _settled(setting: Setting, *, parallel: bool) -> str:
    """What the weights of bottleneck adapters do not tell of them, as arguments."""
    options = setting.method.options
    return f"parallel={parallel}, activation={options.activation!r}, scaling={options.scaling}"


def _held(held: Quantization, dtype: str) -> str:
    """How the base was held, as transformers is told."""
    if held.bits == 8:
        return "BitsAndBytesConfig(load_in_8bit=True)"
    if held.bits != 4:
        return "None"
    return (
        f"BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type={json.dumps(held.quant_type)}, "
        f"bnb_4bit_use_double_quant={held.double_quant}, bnb_4bit_compute_dtype=torch.{dtype})"
    )


def _opening(source: Source, kind: str, dtype: str) -> list[str]:
    """What opens the base as it was trained on. A checkpoint says itself how it is held, but for the dtype in which it
    was computed."""
    repacking = [
        "    for layer in base.modules():  # or bitsandbytes rounds the scales of 4-bit weights on some processors",
        "        if hasattr(layer, 'support_avx512bf16_for_cpu'):",
        "            layer.support_avx512bf16_for_cpu = False",
    ]
    if source.setting.files.stored is None:
        return [
            f"    held = {_held(source.quantization, dtype)}",
            f"    base = {kind}.from_pretrained(",
            f"        BASE, revision=REVISION, dtype=torch.{dtype}, quantization_config=held, use_safetensors=True",
            "    )",
            *repacking,
        ]
    return [
        f"    base = {kind}.from_pretrained(BASE, revision=REVISION, dtype=torch.{dtype}, use_safetensors=True)",
        *repacking,
        f"            layer.compute_dtype = layer.weight.quant_state.dtype = torch.{dtype}",
        "            continue",
        "        for weight in layer.parameters(recurse=False):",
        f"            weight.data = weight.data.to(torch.{dtype})",
    ]


def _asking(kind: str) -> list[str]:
    if kind == "seq2seq":
        return ["    inputs = tokenizer(sys.argv[1], return_tensors='pt')"]
    return [
        "    inputs = tokenizer.apply_chat_template(",
        "        [{'role': 'user', 'content': sys.argv[1]}], add_generation_prompt=True, return_dict=True,",
        "        return_tensors='pt',",
        "    )",
    ]
