"""Tiny models in the shapes that GGUF takes, with tokenizers that cut text as the well-known ones do.

The patterns are those of transformers, the tokenizers are trained here on a few lines.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import tiny

SPECIALS = ["<|endoftext|>", "<|pad|>", "<|bos|>", "<|im_start|>", "<|im_end|>"]
EXTRA = [
    "In 2024, 12 of 345 lamps, 6789 in all; in 1999 it's 3.14.",
    "  two  spaces\n\n\n  and lines\t\ttabs",
    "Ā ñ é ü 🙂🙂",
]


def split(style: str):
    """The pretokenizer of a style, as the tokenizers of that name have it."""
    from tokenizers import Regex, pre_tokenizers
    from transformers.convert_slow_tokenizer import TikTokenConverter
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    if style == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if style == "smollm":
        digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        return pre_tokenizers.Sequence([digits, level])
    llama3 = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    pattern = PRETOKENIZE_REGEX if style == "qwen2" else llama3
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level])


def byte_level(style: str, *, chat: str | None = None, bos: bool = False, pre_tokenizer=None, added=()):
    """A byte-level BPE tokenizer of about 640 tokens that cuts text in a style of GGUF's names."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(ignore_merges=style == "llama-bpe"))
    core.pre_tokenizer = pre_tokenizer or split(style)
    core.normalizer = normalizers.NFC() if style == "qwen2" else None
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*tiny.TEXT, *EXTRA] * 4, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 2)])
    core.add_tokens([AddedToken(token, normalized=False) for token in added])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|endoftext|>",
        bos_token="<|bos|>" if bos else None,
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat
    return fast


def sentencepiece(*, prefix: str = "prepend"):
    """A tokenizer as Llama 2's: merges with a fallback on bytes, spaces written as `▁`. The merges are those that
    transformers derives from a vocabulary with scores."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.tokenization_utils_base import generate_merges

    letters = sorted(set("".join(tiny.TEXT)) - {"\n", " "} | {"▁"})
    words = sorted({f"▁{word}" for line in tiny.TEXT for word in line.split()})
    pieces = list(dict.fromkeys(word[:end] for end in range(2, 12) for word in words if len(word) >= end))[:400]
    pieces = ["▁▁", "▁▁▁▁", *pieces]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, *letters]
    scores = {token: -float(place) for place, token in enumerate(pieces)} | dict.fromkeys(letters, -1e6)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = generate_merges({t: i for t, i in vocabulary.items() if t in scores}, scores)
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if prefix == "prepend":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def save(folder: Path, shape: str, tokens, *, tied: bool = False, shard_size: str = "1GB", **changes) -> Path:
    """Writes a random model of a shape with some fields of its config changed, biases and norms random too."""
    import torch
    from transformers import AutoModelForCausalLM

    settings = tiny.config(shape, len(tokens), tied=tied)
    for name, value in {"eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id, **changes}.items():
        setattr(settings, name, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(type(settings)(**settings.to_dict()))
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() == 1:
                weights += 0.1 * torch.randn_like(weights)
    model.save_pretrained(folder, max_shard_size=shard_size)
    tokens.save_pretrained(folder)
    return folder
