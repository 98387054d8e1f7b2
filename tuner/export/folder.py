"""The folder of a merged model: weights in shards, and all that a plain loader and a chat need beside them."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.eval import Turn
from inlay.tuner import base as base_models
from inlay.tuner.export.chat_template import trained_template
from inlay.tuner.export.source import Source
from inlay.tuner.problems import AnswerNo
from inlay.tuner.setting import Setting

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 2_000_000_000


def write_weights(folder: Path, tensors: Iterator[tuple[str, Tensor]], dtype: str) -> None:
    """Casts the tensors and writes them as safetensors, at most a shard in memory.

    Args:
        dtype: `fp32`, `bf16` or `fp16`.

    Raises:
        AnswerNo: a weight is not finite in that dtype.
    """
    import torch
    from safetensors.torch import save_file

    kind = base_models.dtype_of(dtype)
    shards: list[dict[str, int]] = []
    held: dict[str, Tensor] = {}

    def flush() -> None:
        if held:
            shards.append({name: tensor.nbytes for name, tensor in held.items()})
            save_file(held, folder / f"shard-{len(shards)}", {"format": "pt"})
            held.clear()

    for name, tensor in tensors:
        cast = tensor.to(kind) if tensor.is_floating_point() else tensor
        if cast.is_floating_point() and not torch.isfinite(cast).all():
            help = "export with --dtype bf16" if dtype == "fp16" else "the adapter's weights are damaged"
            raise AnswerNo(f"the merged weight `{name}` is not finite in {dtype}", help=help)
        if sum(part.nbytes for part in held.values()) + cast.nbytes > SHARD_BYTES:
            flush()
        held[name] = cast
    flush()
    for number in range(1, len(shards) + 1):
        (folder / f"shard-{number}").chmod(0o644)  # safetensors keeps its files from everyone else
    if len(shards) == 1:
        (folder / "shard-1").rename(folder / "model.safetensors")
        return
    files = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        (folder / f"shard-{number}").rename(folder / file)
        files |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": sum(sum(shard.values()) for shard in shards)}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_config(folder: Path, setting: Setting, dtype: str) -> None:
    """`config.json` of the plain model."""
    config = copy.deepcopy(base_models.read_config(setting.files))
    config.dtype = base_models.dtype_of(dtype)
    config.name_or_path = ""
    config.save_pretrained(folder)


def write_generation(folder: Path, source: Source) -> None:
    """How the benchmark generated, as transformers reads it; the base's own where the adapter's is not known."""
    from transformers import GenerationConfig

    setting = source.setting
    if not source.formatted:
        if (setting.files.folder / "generation_config.json").is_file():
            shutil.copyfile(setting.files.folder / "generation_config.json", folder / "generation_config.json")
        return
    decoding = setting.decoding
    sampling = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": decoding.top_k}
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=decoding.do_sample,
        num_beams=decoding.num_beams,
        repetition_penalty=decoding.repetition_penalty,
        eos_token_id=list(setting.renderer.stop_ids),
        pad_token_id=setting.pad_id,
        **(sampling if decoding.do_sample else {}),
    )
    if setting.facts.kind == "seq2seq":
        config.decoder_start_token_id = base_models.read_config(setting.files).decoder_start_token_id
    config.save_pretrained(folder)


def write_tokenizer(folder: Path, source: Source) -> None:
    """The tokenizer, with the format of the prompts as its chat template, where that is known."""
    setting = source.setting
    tokenizer = copy.deepcopy(setting.tokenizer)
    if source.formatted and setting.facts.kind == "causal" and setting.task.answers != "read":
        printed = setting.renderer.prompt_text((Turn("user", "a"),)).startswith(str(tokenizer.bos_token))
        # Who applies a template adds no start token of the tokenizer's.
        start = "{{ bos_token }}" if setting.renderer.starts and not printed else ""
        tokenizer.chat_template = start + trained_template(setting.renderer, setting.task.prompt)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.name_or_path = ""
    tokenizer.init_kwargs.pop("name_or_path", None)
    tokenizer.save_pretrained(folder)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weights file by name."""
    found = {}
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*.gguf"))):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
