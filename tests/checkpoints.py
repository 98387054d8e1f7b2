"""4-bit checkpoints as anyone makes them: transformers and bitsandbytes quantize a plain folder and save it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

DEFAULT = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def make(plain: Path, folder: Path, *, dtype: str = "float32", **settings: object) -> Path:
    """Writes the model of `plain` as a checkpoint.

    Args:
        dtype: that its weights are quantized from, and that it computes in.
        settings: of BitsAndBytesConfig.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig

    kind = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(plain).is_encoder_decoder else AutoModelForCausalLM
    held = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype, **{**DEFAULT, **settings})
    model = kind.from_pretrained(
        plain, quantization_config=held, dtype=getattr(torch, dtype), device_map={"": "cpu"}
    )
    model.save_pretrained(folder)
    for path in plain.glob("*token*"):
        shutil.copy2(path, folder)
    return folder


def opened_by_transformers(folder: Path):
    """The checkpoint as plain transformers opens it; bitsandbytes' repacking, which rounds, is switched off."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if AutoConfig.from_pretrained(folder).is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(folder, device_map={"": "cpu"})
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def edit(folder: Path, **fields: object) -> None:
    """Changes what config.json says of the quantization."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= fields
    path.write_text(json.dumps(config))


def rewrite(folder: Path, change) -> None:
    """Passes each tensor (name, tensor) to `change`, which returns what is written: a dict of tensors."""
    path = folder / "model.safetensors"
    written = {}
    for name, tensor in load_file(path).items():
        written |= change(name, tensor)
    save_file(written, path, {"format": "pt"})


def plain_model(folder: Path, tensors: dict):
    """A plain model of the checkpoint's architecture with these tensors."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(tensors)
    return model.eval()
