"""An adapter as an export of its own: its files, the format of its prompts, and a loader that anyone can run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from inlay.tuner import adapter_folder
from inlay.tuner.export import folder as folders
from inlay.tuner.export.source import Source
from inlay.tuner.model_files import HUB_ID
from inlay.tuner.problems import RequestError
from inlay.tuner.quantization import Quantization

LOADER = "load.py"
OWN = {"bottleneck": "import inlay.adapters.bottleneck.layer  # tells PEFT of the method"}
TWO_PARTS = ("mam",)  # two adapters of PEFT around each other, which PEFT alone cannot put together


def refuse_adapter(source: Source) -> None:
    """Says before anything is written why the adapter cannot be loaded without this program.

    Raises:
        RequestError: it is of a method that PEFT alone cannot load.
    """
    method, title = source.setting.recipe.adapter.method, source.setting.method.title
    if source.setting.method.needs_float_weights or not source.setting.method.peft_type:
        reason = f"{title} has no adapter that PEFT loads on this base"
        raise RequestError(reason, help="export it with --format merged")
    if method in TWO_PARTS:
        raise RequestError(f"{title} is two adapters, which PEFT alone cannot load", help="inlay chat, generate, serve")


def write_adapter_part(source: Source, folder: Path) -> None:
    """Writes the files of the adapter, the tokenizer with its chat template, the decoding and the loader."""
    for name in (adapter_folder.CONFIG, adapter_folder.WEIGHTS, adapter_folder.BASE):
        if (source.adapter / name).is_file():
            shutil.copyfile(source.adapter / name, folder / name)
    folders.write_tokenizer(folder, source)
    folders.write_generation(folder, source)
    (folder / LOADER).write_text(loader(source), encoding="utf-8")


def loader(source: Source) -> str:
    """The program that puts the adapter on its base, with what it needs in its first lines."""
    setting, held = source.setting, source.quantization
    kind = "AutoModelForSeq2SeqLM" if setting.facts.kind == "seq2seq" else "AutoModelForCausalLM"
    own = OWN.get(setting.recipe.adapter.method, "")
    needs = ["torch", "transformers", "peft"]
    needs += ["bitsandbytes"] * (held.bits < 16) + ["inlay"] * bool(own)
    name = setting.files.name
    known = name if HUB_ID.fullmatch(name) and "/" in name else ""
    where = f"the base is {name} on the hub" if known else f"the base is `{name}`: set BASE to its folder"
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
        *([own] if own else []),
        "from peft import PeftModel",
        f"from transformers import {kind}, AutoTokenizer, BitsAndBytesConfig, GenerationConfig",
        "",
        "HERE = Path(__file__).resolve().parent",
        f"BASE = os.environ.get('BASE', {known!r})",
        f"REVISION = {setting.files.revision!r}",
        "",
        "",
        "def load():",
        *_opening(source, kind, dtype),
        "    if (HERE / 'generation_config.json').is_file():",
        "        base.generation_config = GenerationConfig.from_pretrained(HERE)",
        "    return PeftModel.from_pretrained(base, HERE).eval(), AutoTokenizer.from_pretrained(HERE)",
        "",
        "",
        "if __name__ == '__main__':",
        "    model, tokenizer = load()",
        *_asking(setting.facts.kind),
        "    print(tokenizer.decode(model.generate(**inputs.to(model.device))[0], skip_special_tokens=True))",
        "",
    ]
    return "\n".join(lines)


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
            f"        BASE, revision=REVISION, dtype=torch.{dtype}, quantization_config=held",
            "    )",
            *repacking,
        ]
    return [
        f"    base = {kind}.from_pretrained(BASE, revision=REVISION, dtype=torch.{dtype})",
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
