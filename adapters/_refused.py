"""Methods that are known and not offered, each with the reason."""

from __future__ import annotations

_IGNORED = "PEFT ignores it on 4-bit layers, where it would be LoRA under another name; use lora"
_DATA = "its start is computed from training data, which a method here does not see; use lora"
_TASKS = "it routes between tasks or adapters, and a recipe trains one"

REASONS = {
    "adaptionprompt": "it is LLaMA-Adapter; write method: llama_adapter",
    "alora": "it acts only after an invocation phrase, and does nothing without one; use lora",
    "bdlora": _IGNORED,
    "boft": "PEFT compiles a CUDA extension for its butterfly factors, and without one trains a single factor; use oft",
    "bone": "PEFT renamed it; use miss",
    "corda": _DATA,
    "cpt": "its update is clipped to a tiny region, which hardly trains; use prompt",
    "eva": _DATA,
    "kasa": _IGNORED,
    "lily": "its routing averages over all tokens, so earlier ones see later ones and perplexity means nothing",
    "loftq": "it replaces the quantized weights by others, so scores with and without it are of two bases",
    "loraga": _DATA,
    "monteclora": _IGNORED,
    "multitaskprompttuning": _TASKS,
    "olora": "it is a start of LoRA; write method: lora and init_lora_weights: olora",
    "pissa": "it is a start of LoRA; write method: lora and init_lora_weights: pissa",
    "poly": _TASKS,
    "qalora": _IGNORED,
    "rslora": "it is an option of LoRA; write method: lora and use_rslora: true",
    "unilora": "PEFT casts its scales to the 4-bit layers' integers, so that it does nothing there; use vblora",
    "xlora": _TASKS,
}


def reason(name: str) -> str | None:
    """Why the method called `name`, spelled in any way, is not offered; None where nothing is known of it."""
    return REASONS.get("".join(char for char in name.lower() if char.isalnum()))
