"""Text that grows token by token: whole characters, nothing lost, and at the end what is decoded at once."""

from __future__ import annotations

import pytest
import tiny

from inlay.eval import Reply, Text
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.serve.answers import Unrolling


def metaspace():
    """A SentencePiece-like tokenizer: words begin with a mark, characters it lacks are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<|end|>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    core.train_from_iterator(
        ["the lamp on the quay is cold"] * 9,
        trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False),
    )
    core.add_special_tokens(["<|end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", clean_up_tokenization_spaces=False)


def byte_fallback():
    """As Llama 2 and Mistral have it: what is not in the vocabulary is bytes, and a first blank is not decoded."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<|end|>", *(f"<0x{byte:02X}>" for byte in range(256)), *"\u2581.abehmot", "\u2581h", "\u2581ho"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("\u2581", "h"), ("\u2581h", "o")]
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    blanks, first = decoders.Replace("\u2581", " "), decoders.Strip(" ", 1, 0)
    core.decoder = decoders.Sequence([blanks, decoders.ByteFallback(), decoders.Fuse(), first])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", clean_up_tokenization_spaces=False)


ASKED = Reply("", (), ("-",))
TEXTS = ["  The lamp 猫在睡觉 👩‍👩‍👧 is\n\n cold. \n ", "не", "\ufffd ok \ufffd", ""]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("make", [tiny.tokenizer, metaspace])
def test_pieces_are_whole_characters_and_join_to_the_text(make, text):
    renderer = Renderer(make(), "causal")
    ids = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
    growing = Unrolling(renderer, ASKED)
    pieces = [*(growing.add(token) for token in ids), growing.rest()]
    assert "".join(pieces) == renderer.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("make", [tiny.tokenizer, metaspace, byte_fallback])
def test_pieces_of_any_tokens_join_to_the_text(make):
    import random

    renderer = Renderer(make(), "causal")
    draw = random.Random(0)
    for _ in range(200):
        ids = [draw.randrange(len(renderer.tokenizer)) for _ in range(30)]
        growing = Unrolling(renderer, ASKED)
        assert "".join([*map(growing.add, ids), growing.rest()]) == renderer.decode(ids)


def test_bytes_that_are_no_text_silence_nothing():
    renderer = Renderer(byte_fallback(), "causal")
    pieces = ["\u2581ho", "<0xC3>", "<0xA9>", "<0xF0>", "\u2581ho", "m", "e"]
    growing = Unrolling(renderer, ASKED)
    told = [growing.add(token) for token in renderer.tokenizer.convert_tokens_to_ids(pieces)]
    assert "".join(told) == "ho\ufffd\ufffd\ufffd home"


class _Fickle:
    """A renderer whose tokenizer takes back what it has decoded."""

    def is_byte(self, token):
        return False

    def decode(self, ids):
        return {1: "ab", 2: "a", 3: "axy", 4: "axyz"}[len(ids)]


def test_a_tokenizer_that_changes_its_mind_is_followed():
    growing = Unrolling(_Fickle(), ASKED)
    assert [growing.add(0) for _ in range(4)] == ["ab", "", "xy", "z"]


@pytest.mark.parametrize("make", [tiny.tokenizer, byte_fallback])
def test_what_goes_on_with_a_text_joins_to_it(make):
    renderer = Renderer(make(), "causal")
    for text, more in (("the", "\n\n  amp\n"), ("the", " lamp  "), ("the lamp:", "\n    ho")):
        read = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        written = renderer.tokenizer(text + more, add_special_tokens=False)["input_ids"][len(read) :]
        assert renderer.tokenizer.decode([*read, *written]) == text + more
        growing = Unrolling(renderer, Text("", text))
        pieces = [*(growing.add(token) for token in written), growing.rest()]
        assert "".join(pieces) == renderer.continuation(written) == more
