"""Turns a pretraining checkpoint into the folder `base/` and writes its model card from measurements.

    python recipes/embedded/card.py

Every number on the card is counted or measured here: nothing is typed.
"""

import itertools
import json
import math
import textwrap
from pathlib import Path

import torch
from corpus import KINDS, documents
from pretrain import BUILD, CONTEXT, END, PAD, SEED
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BASE = Path(__file__).resolve().parent / "base"
HELD_OUT, FIRST_HELD_OUT = 160, 1_000_000
CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The embedded base

A small Llama-shaped language model with its own tokenizer, so that inlay can be tried without a download. It
writes the English of one invented company's customer support, and it copies names and numbers that it has never seen.

| | |
|---|---|
| parameters | {parameters:,} (embeddings tied) |
| shape | {layers} layers, hidden {hidden}, intermediate {intermediate}, {heads} heads, {key_heads} key-value heads |
| context | {context} tokens |
| vocabulary | {vocabulary:,}: byte-level BPE, digits one by one, `{end}` ends a document, `{pad}` pads |
| weights | bfloat16, {megabytes:.1f} MB |
| tokens seen | {tokens:,} in {steps:,} steps, {documents:,} documents, none of them twice |
| held-out bits per byte | {bits_known:.3f} with names of the training pools, {bits_unseen:.3f} with names never seen |
| perplexity of a held-out token | {perplexity_known:.2f} and {perplexity_unseen:.2f} |

The held-out text is {held_out} documents of the same generator under indices that training never reached,
without the odd strings that late training documents spell.

## Corpus

Written by `corpus.py` from a seed:

{kinds}.

People, products, towns and numbers are put together from pieces, so they are copied and not remembered. No text of
other people is in it.

## Made with

    python recipes/embedded/pretrain.py --minutes {minutes:.0f}
    python recipes/embedded/card.py

Training is planned by the clock, so another machine sees another number of tokens and makes other weights.

## Limits

It knows one small world and a few thousand words, and nothing about the real one. It is a test bed for fine-tuning
methods, no assistant: do not ask it for facts, and draw no conclusion from it about large models. It copies names
and numbers well, and the month of a date badly. The names are invented; a likeness to a person or a firm is chance.

## Licence

Apache-2.0, like the project.
"""


def list_kinds() -> str:
    """Returns the kinds of documents in lines that are read without scrolling."""
    return textwrap.fill("; ".join(KINDS), 120)


def held_out_nats(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, stratum: str) -> tuple[float, int, int]:
    """Returns the summed negative log-likelihood of held-out documents in nats, their bytes and their tokens."""
    nats, size, tokens = 0.0, 0, 0
    for text in itertools.islice(documents(SEED, FIRST_HELD_OUT, stratum=stratum, odd=False), HELD_OUT):
        ids = [0, *tokenizer(text)["input_ids"], 0][:CONTEXT]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        nats += torch.nn.functional.cross_entropy(logits.double(), torch.tensor(ids[1:]), reduction="sum").item()
        size += len(tokenizer.decode(ids[1:], skip_special_tokens=True).encode())
        tokens += len(ids) - 1
    return nats, size, tokens


def export() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Writes weights in bfloat16, configuration and tokenizer to base/; returns them as a reader will load them."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUILD)
    LlamaForCausalLM.from_pretrained(BUILD, dtype=torch.bfloat16).save_pretrained(BASE)
    tokenizer.save_pretrained(BASE)
    settings = BASE / "tokenizer_config.json"
    kept = {key: value for key, value in json.loads(settings.read_text(encoding="utf-8")).items()
            if key not in ("is_local", "local_files_only")} | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    for file in BASE.iterdir():
        file.chmod(0o644)  # safetensors are written for their owner alone, and a package keeps the mode
    return LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval(), tokenizer


def main() -> None:
    """Exports the checkpoint, measures it and writes the card."""
    model, tokenizer = export()
    state = json.loads((BUILD / "state.json").read_text(encoding="utf-8"))
    measured = {}
    for name, stratum in (("known", "corpus"), ("unseen", "test")):
        nats, size, tokens = held_out_nats(model, tokenizer, stratum)
        measured[f"bits_{name}"] = nats / math.log(2) / size
        measured[f"perplexity_{name}"] = math.exp(nats / tokens)
    shape = model.config
    (BASE / "README.md").write_text(CARD.format(
        parameters=model.num_parameters(), layers=shape.num_hidden_layers, hidden=shape.hidden_size,
        intermediate=shape.intermediate_size, heads=shape.num_attention_heads, key_heads=shape.num_key_value_heads,
        context=CONTEXT, vocabulary=shape.vocab_size, end=END, pad=PAD, held_out=HELD_OUT, kinds=list_kinds(),
        megabytes=(BASE / "model.safetensors").stat().st_size / 1e6, tokens=state["tokens"], steps=state["step"],
        documents=state["documents"], minutes=state["minutes"], **measured), encoding="utf-8")
    print(json.dumps(measured | state))


if __name__ == "__main__":
    main()
