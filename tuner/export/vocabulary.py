"""A tokenizer as GGUF holds it: tokens with their types, merges or scores, and the name of the way to split a text.

A GGUF file has no `tokenizer.json`. The reader of the file brings the code, and the file names it:

    tokenizer.ggml.model        gpt2: byte-level BPE; llama: SentencePiece's BPE
    tokenizer.ggml.pre          which regular expressions cut a text before the merges (byte-level alone)
    tokenizer.ggml.tokens       the vocabulary in the order of its ids, and with each token its type
    tokenizer.ggml.merges       byte-level; SentencePiece has a score for each token instead

A wrong name is not noticed until the model answers badly, so what is not known exactly is refused. Source: the
pretokenizers of llama.cpp (`llama_vocab::impl::load` and `llm_tokenizer_bpe`), by the names that it reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from inlay.tuner.problems import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

# How tokenizer.json spells a pretokenizer, and whether a word that is a token skips the merges -> GGUF's name for both.
PRETOKENIZERS = {
    ("byte level", False): "gpt-2",
    ("digits, byte level", False): "smollm",
    (LLAMA3_SPLIT, True): "llama-bpe",
    (LLAMA3_SPLIT, False): "smaug-bpe",
    (QWEN2_SPLIT, False): "qwen2",
}

SPACE = "\u2581"

# Readers of SentencePiece models put a space before a text and behind every mark; a pretokenizer `Metaspace` only where
# a text begins with none, and what follows a mark does not count as the beginning.
SPACED = "text that begins with a space or follows a mark: one more space is put before it"
COMPOSED = "text with accents as characters of their own: it is not composed (NFC) first"


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of the tokenizer.

    Attributes:
        model: `gpt2` for byte-level BPE, `llama` for SentencePiece's.
        pre: the pretokenizer's name.
        tokens: by id, one for each row of the embedding.
        types: of each token, one of the numbers above.
        merges: `left right`, best first; empty for SentencePiece.
        scores: of each token, higher merges first; empty for byte-level BPE.
        ids: `bos`, `eos`, `unk` and `pad`, those that there are.
        add_bos: whether a text begins with the start token.
        add_space: whether a space is put before a text (SentencePiece alone).
        notes: texts that a GGUF reader tokenizes otherwise, in words.
    """

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    ids: Mapping[str, int]
    add_bos: bool
    add_space: bool
    notes: tuple[str, ...]


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """The tokenizer in GGUF's terms.

    Args:
        tokenizer: as transformers loads it.
        rows: of the model's embedding; ids that no token has are filled up.

    Raises:
        RequestError: GGUF has no name for what this tokenizer does.
    """
    if not tokenizer.is_fast:
        raise RequestError("its tokenizer has no tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise RequestError("its tokenizer has no token that ends a text")
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    model = told["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise RequestError(f"its tokenizer is {model['type']}, GGUF is written for byte-level and SentencePiece BPE")
    if model.get("dropout"):
        raise RequestError("its tokenizer drops merges at random, which GGUF cannot say")
    tokens, types = _tokens(tokenizer, told["added_tokens"], rows)
    ids, add_bos = _special_ids(tokenizer)
    if model.get("byte_fallback"):
        types = _sentencepiece_types(tokens, types, model.get("unk_token"))
        scores = _scores(tokens, types, [_pair(merge) for merge in model["merges"]])
        add_space, notes = _prefix(told)
        return Vocabulary("llama", "default", tokens, types, (), scores, ids, add_bos, add_space, notes)
    pre, notes = _pretokenizer(told)
    merges = tuple(" ".join(_pair(merge)) for merge in model["merges"])
    return Vocabulary("gpt2", pre, tokens, types, merges, (), ids, add_bos, False, notes)


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before every text."""
    bare, full = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    return full[: next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)]


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """A merge of tokenizer.json, which spells it in two ways."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _tokens(
    tokenizer: PreTrainedTokenizerBase, added: Sequence[Mapping[str, object]], rows: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Tokens and their types by id. Added tokens are matched whole in a text: as marks if special, else always."""
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    if max(tokens) >= rows:
        raise RequestError(f"its tokenizer has ids up to {max(tokens)}, its embedding {rows} rows")
    types = dict.fromkeys(tokens, NORMAL)
    for token in added:
        trait = next((name for name in ("lstrip", "rstrip", "single_word") if token[name]), None)
        if trait:
            raise RequestError(f"its token `{token['content']}` is matched with `{trait}`, which GGUF cannot say")
        types[int(str(token["id"]))] = CONTROL if token["special"] else USER_DEFINED
    return (
        tuple(tokens.get(index, f"[PAD{index}]") for index in range(rows)),
        tuple(types.get(index, UNUSED) for index in range(rows)),
    )


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], bool]:
    """The ids of the tokens that have a part of their own, and whether a text begins with one of them."""
    parts = ("bos", "eos", "unk", "pad")
    found = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id]
    ids = {part: index for part, index in zip(parts, found, strict=True) if index is not None}
    start = start_tokens(tokenizer)
    if len(start) > 1:
        raise RequestError(f"its tokenizer puts {len(start)} tokens before every text, and GGUF has room for one")
    if start:
        ids["bos"] = start[0]
    return ids, bool(start)


def _pretokenizer(told: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """The name of a byte-level pretokenizer, and what it leaves out."""
    steps = _steps(told["pre_tokenizer"], "pretokenizers")
    model = told["model"]
    assert isinstance(model, Mapping)
    name = PRETOKENIZERS.get((_spelling(steps), bool(model.get("ignore_merges"))))
    if name is None:
        kinds = ", ".join(str(step["type"]) for step in steps) or "nothing"
        raise RequestError(f"its tokenizer cuts text in a way that GGUF has no name for here ({kinds})")
    normal = [str(step["type"]) for step in _steps(told["normalizer"], "normalizers")]
    if normal not in ([], ["NFC"]):
        raise RequestError(f"its tokenizer rewrites text first ({', '.join(normal)}), which GGUF cannot say")
    return name, (COMPOSED,) if normal else ()


def _spelling(steps: Sequence[Mapping[str, object]]) -> str:
    """The key of `PRETOKENIZERS`: the pattern, or the names of the steps; empty for anything else."""
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return ""
    first, own_split = steps[:-1], steps[-1].get("use_regex", True)
    if own_split and not first:
        return "byte level"
    if own_split and len(first) == 1 and first[0]["type"] == "Digits" and first[0]["individual_digits"]:
        return "digits, byte level"
    if own_split or len(first) != 1 or first[0]["type"] != "Split":
        return ""
    pattern, isolated = first[0]["pattern"], first[0]["behavior"] == "Isolated" and not first[0]["invert"]
    return str(pattern.get("Regex", "")) if isolated and isinstance(pattern, Mapping) else ""


def _steps(part: object, inside: str) -> list[Mapping[str, object]]:
    """The steps of a normalizer or pretokenizer: none, one, or those of a sequence."""
    if not isinstance(part, Mapping):
        return []
    return list(part[inside]) if part["type"] == "Sequence" else [part]


def _sentencepiece_types(tokens: Sequence[str], types: Sequence[int], unknown: str | None) -> tuple[int, ...]:
    """With the types of the 256 bytes, `<0x00>` to `<0xFF>`, and of the token for what is unknown."""
    special = {f"<0x{byte:02X}>": BYTE for byte in range(256)}
    missing = next((token for token in special if token not in tokens), None)
    if missing:
        raise RequestError(f"its tokenizer falls back on bytes but has no token `{missing}`")
    if unknown:
        special[unknown] = UNKNOWN
    return tuple(special.get(token, kind) for token, kind in zip(tokens, types, strict=True))


def _scores(tokens: Sequence[str], types: Sequence[int], merges: Sequence[tuple[str, str]]) -> tuple[float, ...]:
    """Scores under which SentencePiece merges as these merges do: the later a token is merged, the lower.

    SentencePiece knows no list of merges: it joins any two neighbours whose text is a token, best score first. That is
    the same only where every such pair is listed, and where the pairs that make one token stand together.
    """
    normal = {token for token, kind in zip(tokens, types, strict=True) if kind == NORMAL}
    order = [token for token, _ in groupby(left + right for left, right in merges)]
    joined = {
        (token[:cut], token[cut:])
        for token in normal
        for cut in range(1, len(token))
        if token[:cut] in normal and token[cut:] in normal
    }
    if len(order) > len(set(order)) or joined != set(merges):
        raise RequestError("its tokenizer's merges are not those that SentencePiece would make from its vocabulary")
    rank = {token: -float(place) for place, token in enumerate(order)}
    return tuple(rank.get(token, 0.0) for token in tokens)


def _prefix(told: Mapping[str, object]) -> tuple[bool, tuple[str, ...]]:
    """Whether a space is put before a text, of a tokenizer that writes spaces as `▁` and cuts nowhere else."""
    normal = _steps(told["normalizer"], "normalizers")
    steps = _steps(told["pre_tokenizer"], "pretokenizers")
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    if not steps and normal in ([replace], [prepend, replace]):
        return len(normal) == 2, ()
    if not normal and len(steps) == 1 and steps[0]["type"] == "Metaspace":
        step = steps[0]
        if step["replacement"] == SPACE and not step.get("split", True):
            add_space = step["prepend_scheme"] != "never"
            return add_space, (SPACED,) if add_space else ()
    raise RequestError("its tokenizer prepares text in a way that SentencePiece does not")
