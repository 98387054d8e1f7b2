"""Tiny random models of real architectures with a real tokenizer, made from config objects: nothing is downloaded.

Weights are drawn with a standard deviation of 0.1, so that logits have a spread of several units and differences below
1e-4 are rounding.
"""

from __future__ import annotations

from pathlib import Path

SHAPES = ("llama", "gpt2", "t5", "gpt_neox", "gpt_neo", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

TEXT = [
    "User: Hey, how are you today?\nBot: I am fine, thanks. The lamp is broken.",
    "Anna writes that the order 4821 has not arrived. Ben answers that it will come on Monday.",
    "Summarize the following text. The engine stops when the water is cold. Summary: engine stops",
    "What is the topic? sport, news, weather, film, music. Label: sport good bad yes no",
    "der Hund läuft über die Straße и кошка спит 猫在睡觉 今天天气很好。",
]


def tokenizer(chat_template: str | None = None, *, bos: bool = False, pad: str | None = "<|pad|>", appends_eos=False):
    """A byte-level BPE tokenizer of 512 entries; `bos` puts `<|bos|>` before every text, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|end|>", "<|pad|>", "<|bos|>", "<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXT * 4, trainer)
    if bos or appends_eos:
        single = ("<|bos|> " if bos else "") + "$A" + (" <|end|>" if appends_eos else "")
        core.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<|bos|>", 2), ("<|end|>", 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|end|>",
        bos_token="<|bos|>" if bos else None,
        pad_token=pad,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template
    return fast


def config(shape: str, vocabulary: int, *, tied: bool = False):
    """A two-layer config of the architecture, hidden 64, 4 heads."""
    from transformers import AutoConfig

    common = {
        "vocab_size": vocabulary,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "tie_word_embeddings": tied,
    }
    llama = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 256,
        "initializer_range": 0.1,
    }
    own = {
        "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.1},
        "gpt_neo": {
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 32,
            "max_position_embeddings": 256,
            "initializer_range": 0.1,
        },
        "t5": {
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 1,
            "dropout_rate": 0.0,
            "initializer_factor": 1.0,
        },
        "qwen3": {**llama, "num_key_value_heads": 2, "head_dim": 16},
        "gemma2": {**llama, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 64},
        "gemma3_text": {**llama, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 64},
        "gpt_neox": {**llama},
    }.get(shape, {**llama, "num_key_value_heads": 2})
    return AutoConfig.for_model(shape, **{**common, **own})


def save(folder: Path, shape: str, *, tied: bool = False, seed: int = 0, tokens=None) -> Path:
    """Writes a random model of `shape` and its tokenizer to `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    tokens = tokens or tokenizer(appends_eos=shape == "t5")
    torch.manual_seed(seed)
    kind = AutoModelForSeq2SeqLM if shape == "t5" else AutoModelForCausalLM
    model = kind.from_config(config(shape, len(tokens), tied=tied))
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
