"""What a run will take, told before a weight is loaded: trainable weights, peak memory, disk.

Memory is a sum of parts. The adapter is attached to the base on the meta device, where tensors have shapes and no
content, and the largest batch of the run goes through it: what autograd would keep for the backward pass is counted
tensor by tensor. What libraries and allocators take beside that is not known to a byte, so the forecast is a range.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inlay.eval.likelihood import TOKENS, answer_pairs
from inlay.tuner import base as base_models
from inlay.tuner.architecture import without_weights
from inlay.tuner.plain_weights import worth
from inlay.tuner.records import ForecastRecord
from inlay.tuner.setting import Setting
from inlay.tuner.training.rows import Order

FP32 = 4
TRAINED = 4 * FP32  # a trained weight, its gradient, and two moments of Adam
# Bytes a weight takes in a quantized layer: the code, and a scale for each block of 64 (itself in 8 bit).
PER_WEIGHT = {4: 0.5 + 1 / 64, 8: 1.0, 16: 2.0, 32: 4.0}
LOW, HIGH = 0.75, 1.35
LIBRARIES = 400_000_000  # at most loaded after the forecast: kernels, optimizer, buffers of the allocator
PREDICTION, PAGE = (500, 20_000), 1_000_000  # bytes of a line of predictions.jsonl; of the page and the other files


@dataclass(frozen=True)
class Shape:
    """The largest batch of a training: rows, the longest of them in tokens (encoder and decoder), and label tokens."""

    rows: int
    source: int
    tokens: int
    labels: int


def forecast(setting: Setting) -> ForecastRecord | None:
    """Predicts peak memory and the run's size on disk.

    Returns:
        None for an architecture whose forward pass cannot be followed without its weights.
    """
    facts, recipe = setting.facts, setting.recipe
    device = "cuda:0" if base_models.on_gpu() else "cpu"
    dtype = base_models.compute_dtype_of(setting.quantization, device)
    trainable = setting.trainable
    shape = largest_batch(setting)
    width = dtype.itemsize
    try:
        saved, vocabulary = _activations(setting, shape)
    except (NotImplementedError, RuntimeError):  # what torch says of a shape that depends on content
        return None
    parts = {
        "process": 0 if device != "cpu" else _resident(),
        "base": _base_bytes(setting, width),
        "adapter and optimizer": trainable * TRAINED,
        "activations": saved * width // FP32,
        # of the label tokens alone: the logits, their gradient, and three fp32 tensors of the loss
        "logits": shape.labels * vocabulary * (2 * width + 3 * FP32),
    }
    if recipe.train.gradient_checkpointing:
        parts["activations"] //= max(1, facts.layers)
    fixed = parts["process"]
    rest = sum(parts.values()) - fixed
    late = LIBRARIES if fixed else 0
    lines = len(setting.data.examples[recipe.eval.split])
    return ForecastRecord(
        trainable_parameters=trainable,
        peak_bytes=(round(LOW * (fixed + rest)), round(fixed + late + HIGH * rest)),
        benchmark_bytes=fixed + parts["base"] + _largest_answer(setting) * vocabulary * width,
        parts=parts,
        disk_bytes=(trainable * FP32 + PREDICTION[0] * lines, trainable * FP32 + PREDICTION[1] * lines + PAGE),
    )


def largest_batch(setting: Setting) -> Shape:
    """The micro-batch of the run that holds the most tokens, padding included."""
    rows, options = setting.data.training, setting.recipe.train
    order = Order(len(rows), setting.recipe.seed)
    batches = setting.steps * options.gradient_accumulation_steps
    best = Shape(0, 0, 0, 0)
    for batch in itertools.islice(_batches(order, options.micro_batch_size), batches):
        found = [rows[i] for i in batch]
        shape = Shape(
            rows=len(found),
            source=max(len(row.source) for row in found),
            tokens=max(len(row.ids) for row in found),
            labels=sum(row.labels for row in found),
        )
        if shape.rows * (shape.source + shape.tokens) > best.rows * (best.source + best.tokens):
            best = shape
    return best


def _largest_answer(setting: Setting) -> int:
    """Positions that a batch of the benchmark computes logits of, at most."""
    examples = setting.data.examples[setting.recipe.eval.split]
    pairs = (pair for example in examples for pair in answer_pairs(setting.renderer, example))
    longest = max((len(scored) for _, scored in pairs), default=0)
    return max(longest, min(TOKENS, longest * min(setting.recipe.eval.batch_size, len(examples))))


def _batches(order: Order, size: int) -> Iterator[list[int]]:
    """Epoch after epoch; the last batch of one may be smaller."""
    while True:
        rows = iter(order)
        while batch := list(itertools.islice(rows, size)):
            yield batch


def _activations(setting: Setting, shape: Shape) -> tuple[int, int]:
    """Bytes that autograd keeps for the backward pass, in fp32, and the logits of one position."""
    import torch

    model = without_weights(base_models.read_config(setting.files), setting.recipe.base.attention)
    model.config.pad_token_id = None  # else some models look for pads among the ids, which have no content here
    if setting.trainable == setting.facts.parameters:  # every weight: nothing is attached
        model.requires_grad_(True)
    else:
        model.requires_grad_(False)
        model = setting.method.attach(model, setting.facts, seed=0, steps=max(1, setting.steps)).model
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    def ids(tokens: int) -> torch.Tensor:
        return torch.zeros((shape.rows, tokens), dtype=torch.long, device="meta")

    inputs = {"input_ids": ids(shape.source or shape.tokens)}
    if shape.source:
        inputs["decoder_input_ids"] = ids(shape.tokens)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model.train()(**inputs).logits
    return sum(kept.values()), logits.shape[-1]


def _base_bytes(setting: Setting, width: int) -> int:
    """With the plain weights beside quantized ones, where they are kept."""
    facts, stored = setting.facts, setting.files.stored
    linear = sum(layer.in_features * layer.out_features for layer in facts.linears.values())
    per_weight = PER_WEIGHT[facts.bits]
    if facts.bits == 4 and not setting.quantization.double_quant:
        per_weight += FP32 / 64
    if stored:  # its quantized weights may be fewer, or more by those of the head
        linear, per_weight = min(linear, stored.weights), stored.bytes / stored.weights
    # Embeddings and head stay as they were loaded.
    plain, quantized = linear * width, linear * per_weight
    if setting.method.needs_float_weights:
        held = plain
    else:
        beside = facts.bits == 4 and not base_models.on_gpu() and worth(plain)
        held = quantized + (plain if beside else 0)
    return round(held + (facts.parameters - linear) * width)


def _resident() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    line = next((line for line in status.read_text().splitlines() if line.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(line.split()[1]) * 1024
