"""GGUF files read by llama.cpp itself, where it is installed (`pip install xllamacpp`): the program that they are for.

Transformers reads a file's tensors, but not every name of a pretokenizer, and no frequencies of Llama 3. Here tokens of
difficult texts must be those of the folder's tokenizer, and greedy replies those of its model.
"""

from __future__ import annotations

import json
import random
import urllib.request

import pytest
from gguf_models import byte_level, save, sentencepiece
from test_gguf import ACCENTS, LINEAR, LLAMA3

from inlay.eval import Turn
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export.chat_template import plain_template
from inlay.tuner.export.gguf import write_gguf
from inlay.tuner.export.gguf_check import TEXTS

xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")

MODELS = {
    "llama": ("llama", lambda: byte_level("gpt-2", added=("<think>",)), {"attention_bias": True, "mlp_bias": True}),
    "llama-smollm": ("llama", lambda: byte_level("smollm"), {"head_dim": 32, "tied": True}),
    "llama-3": ("llama", lambda: byte_level("llama-bpe", bos=True), {"rope_parameters": LLAMA3}),
    "llama-linear": ("llama", lambda: byte_level("smaug-bpe"), {"rope_parameters": LINEAR}),
    "llama-2": ("llama", sentencepiece, {}),
    "qwen2": ("qwen2", lambda: byte_level("qwen2"), {}),
    "qwen3": ("qwen3", lambda: byte_level("qwen2"), {"head_dim": 32}),
    "gpt2": ("gpt2", lambda: byte_level("gpt-2"), {"tied": True}),
}


class Served:
    """A file served by llama.cpp on loopback."""

    def __init__(self, file):
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx, settings.n_parallel, settings.port, settings.verbosity = 256, 1, 0, -1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.warmup = False
        self.server = xllamacpp.Server(settings)

    def ask(self, path: str, **asked) -> dict:
        request = urllib.request.Request(
            self.server.listening_address + path, json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def tokens(self, text: str, *, start: bool) -> list[int]:
        return self.ask("/tokenize", content=text, add_special=start, parse_special=True)["tokens"]

    def reply(self, prompt: list[int]) -> list[int]:
        return self.ask("/completion", prompt=prompt, n_predict=8, temperature=0, return_tokens=True)["tokens"]


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_reads_the_same_tokens_and_writes_the_same_replies(name, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape, tokens, changes = MODELS[name]
    folder = save(tmp_path / "m", shape, tokens(), **changes)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = plain_template(None)
    served = Served(write_gguf(folder, tmp_path / "m.gguf", "f32", template=template).file)
    marked = "a ".join(token.content for token in tokenizer.added_tokens_decoder.values())
    texts = [text for text in (*TEXTS, marked) if text != ACCENTS or shape not in ("qwen2", "qwen3")]
    assert [served.tokens(text, start=False) for text in texts] == [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts
    ]
    assert [served.tokens(text, start=True) for text in texts] == [tokenizer(text)["input_ids"] for text in texts]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    draw = random.Random(1)
    for _ in range(4):
        prompt = [draw.randrange(260, len(tokenizer)) for _ in range(100)]
        asked = {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, 100, dtype=torch.long)}
        greedy = model.generate(**asked, max_new_tokens=8, do_sample=False)[0, 100:].tolist()
        reply = served.reply(prompt)
        assert reply
        assert reply == greedy[: len(reply)]
    talk = (Turn("system", "Be kind."), Turn("user", "Hey, how?"), Turn("assistant", "Fine."), Turn("user", "Where?"))
    messages = [{"role": turn.role, "content": turn.text} for turn in talk]
    trained = Renderer(tokenizer, "causal")
    assert served.ask("/apply-template", messages=messages)["prompt"] == trained.prompt_text(talk)
    assert served.tokens(trained.prompt_text(talk), start=True) == list(trained.prompt_ids(talk))
