"""A GGUF file read back by plain transformers and compared with the folder that it was written from.

Everything that the comparison loads comes from the file: where the reader of transformers leaves a field of the file
out, it is set here from the file, never from the folder. Both models compute in float32, one after the other.

    python -m inlay.tuner.export.gguf_check < {"file": ..., "folder": ..., "prompts": [[ids], ...], "template": ...}
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LARGEST_LOGIT_DIFFERENCE = 1e-3
LOGIT_BYTES = 2**28  # of logits that are kept, at most
LEAST_TOP1 = 0.5  # of files that round: rounding to 8 bits moves a few of a hundred tokens

# What tokenizers stumble over: blanks, line ends, digits, accents of one and of two characters, scripts without
# blanks or from right to left, emoji of one and of many characters, bytes that are no character of any word.
TEXTS = (
    "Hello, world! It's 5 o'clock; they'LL come, won't they?",
    " a  b   c \t\td\n\n\ne \r\n f",
    "1 12 123 1234567890 3.14159 1,000,000 0x1F 2024-01-31 ½ ² Ⅷ ١٢٣",
    "naïve café Ærøskøbing straße Ωmega ёж",
    "cafe\u0301 n\u0303 A\u030a",
    "今天天气很好。こんにちは世界 안녕하세요",
    "مرحبا بالعالم שלום עולם हिन्दी ไทย",
    "🙂 👩‍👩‍👧‍👦 🇩🇪 👍🏽 \U0001f9ff",
    "def f(x):\n    return {'a': [x**2 for x in range(10)]}  # ___\n",
    "\u00a0\u200b\u3000\ufeff\u2028 \x00\x1f\x7f \ufffd",
    "[INST] <0x0A> ▁▁ <| end |>",
    "a" * 70 + " " * 30 + "!" * 40,
    "",
)


@dataclass(frozen=True)
class Readback:
    """How a GGUF file differs from the folder that it was written from.

    Attributes:
        tokens: positions that were compared, the last of each prompt.
        largest, mean: absolute difference of logits.
        top1: share of positions with the same likeliest token.
        prompts: how many were continued greedily.
        same_replies: how many of them were continued with the same tokens.
        texts: those that the file's tokenizer, as transformers builds it, cuts otherwise.
        marks: whether a text gets the same start token, and the tokens with a part of their own are the same.
        template: whether the chat template is the same.
    """

    tokens: int
    largest: float
    mean: float
    top1: float
    prompts: int
    same_replies: int
    texts: tuple[str, ...]
    marks: bool
    template: bool

    def fault(self) -> str | None:
        """Why a float32 file is not the folder's model, or None. Texts are not judged: where transformers knows no
        name for a file's pretokenizer it takes GPT-2's, so a difference there need not be the file's."""
        if not self.largest <= LARGEST_LOGIT_DIFFERENCE:
            return f"its logits differ by up to {self.largest:.2g} (at most {LARGEST_LOGIT_DIFFERENCE:g})"
        if self.same_replies < self.prompts:
            return f"{self.prompts - self.same_replies} of {self.prompts} greedy replies differ"
        return self.damage()

    def damage(self) -> str | None:
        """Why a file of any kind is none of the folder's model, or None."""
        if not math.isfinite(self.largest):
            return "its logits are not finite"
        if self.top1 < LEAST_TOP1:
            return f"the likeliest token is the same at {self.top1:.0%} of the positions alone"
        if not self.marks:
            return "its start, end or padding token is another"
        return None if self.template else "its chat template is another"


def check_gguf(
    file: Path, folder: Path, prompts: Sequence[Sequence[int]], *, template: str | None, new_tokens: int = 16
) -> Readback:
    """Compares a GGUF file with the model folder that it was written from.

    Args:
        file: of any kind; matrices that are not float32 are expanded.
        folder: the merged model.
        prompts: token ids, each within the model's context less `new_tokens`.
        template: the chat template that the file is to carry.
        new_tokens: greedy tokens after each prompt.

    Source: `transformers` reads both; its GGUF reader shares no code with the writer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = _config(file)
    expected = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    kept = max(1, LOGIT_BYTES // (4 * config.vocab_size * len(prompts)))
    wanted = [_answer(expected, prompt, new_tokens, kept) for prompt in prompts]
    del expected
    found = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=config, dtype=torch.float32, local_files_only=True
    )
    _stretch(found, file)
    largest, total, tokens, hits, same = [], 0.0, 0, 0, 0
    for prompt, (logits, reply) in zip(prompts, wanted, strict=True):
        other, said = _answer(found, prompt, new_tokens, kept)
        hits += int((logits.argmax(-1) == other.argmax(-1)).sum())
        difference = (logits - other).abs_()
        largest.append(difference.max())
        total += float(difference.mean(-1, dtype=torch.float64).sum())
        tokens += len(difference)
        same += reply == said
    told = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    texts, marks = _tokenizers(
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False), told
    )
    return Readback(
        tokens=tokens,
        largest=float(torch.stack(largest).max()),  # not a number where one is not
        mean=total / tokens,
        top1=hits / tokens,
        prompts=len(prompts),
        same_replies=same,
        texts=texts,
        marks=marks,
        template=told.chat_template == template,
    )


def _config(file: Path) -> PreTrainedConfig:
    """The config that transformers reads from the file, with the fields of the file that it leaves out."""
    from gguf import GGUFReader
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    reader = GGUFReader(file)
    told, names = _fields(reader), {tensor.name for tensor in reader.tensors}
    if config.model_type == "gpt2":
        config.n_positions = told["context_length"]
        config.n_inner = told["feed_forward_length"]
        return config
    config.head_dim = told["attention.key_length"]
    if config.model_type == "llama":
        config.attention_bias = "blk.0.attn_q.bias" in names
        config.mlp_bias = "blk.0.ffn_up.bias" in names
    if told.get("rope.scaling.type") == "linear":
        config.rope_parameters |= {"rope_type": "linear", "factor": told["rope.scaling.factor"]}
    return config


def _fields(reader: GGUFReader) -> Mapping[str, object]:
    """The file's sizes by their names without the architecture's."""
    arch = reader.fields["general.architecture"].contents()
    return {key.removeprefix(f"{arch}."): field.contents() for key, field in reader.fields.items() if arch in key}


def _stretch(model: PreTrainedModel, file: Path) -> None:
    """Divides the rotary frequencies by the factors of the file, which the reader of transformers passes over."""
    import torch
    from gguf import GGUFReader

    for tensor in GGUFReader(file).tensors:
        if tensor.name == "rope_freqs.weight":
            model.model.rotary_emb.inv_freq /= torch.tensor(tensor.data)


def _answer(
    model: PreTrainedModel, prompt: Sequence[int], new_tokens: int, kept: int
) -> tuple[torch.Tensor, list[int]]:
    """Logits [positions, vocabulary] of the last positions of a prompt, at most `kept`, and its greedy continuation,
    whatever ends a text."""
    import torch

    ids, reply = torch.tensor([list(prompt)]), []
    with torch.inference_mode():
        output = model(ids, use_cache=True, logits_to_keep=kept)
        logits = output.logits[0].clone()
        while True:
            reply.append(int(output.logits[0, -1].argmax()))
            if len(reply) == new_tokens:
                return logits, reply
            output = model(torch.tensor([[reply[-1]]]), past_key_values=output.past_key_values, use_cache=True)


def _tokenizers(expected: PreTrainedTokenizerBase, found: PreTrainedTokenizerBase) -> tuple[tuple[str, ...], bool]:
    """The texts that the two cut differently, and whether their marks agree."""
    marked = "a ".join(token.content for token in expected.added_tokens_decoder.values())
    texts = tuple(
        text
        for text in (*TEXTS, marked)
        if expected(text, add_special_tokens=False)["input_ids"] != found(text, add_special_tokens=False)["input_ids"]
    )
    parts = ("eos_token_id", "pad_token_id")
    marks = [[getattr(tokenizer, part) for part in parts] for tokenizer in (expected, found)]
    starts = [tokenizer("a")["input_ids"][0] for tokenizer in (expected, found)]
    return texts, marks[0] == marks[1] and starts[0] == starts[1]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    found = check_gguf(Path(asked["file"]), Path(asked["folder"]), asked["prompts"], template=asked["template"])
    print(json.dumps(asdict(found)))
