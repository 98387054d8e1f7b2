"""VB-LoRA: the factors of LoRA are put together from vectors of one trained bank that all layers share.

    y = W x + B A x     each stretch of vector_length numbers of A and B is sum_k softmax(top-k of s)_k v_k

The bank holds num_vectors vectors v; every stretch has its own num_vectors scores s, of which the topk largest count.
Bank and scores train. Both start random, so the first forward pass is near the base's, not equal to it.
Source: Li et al. 2024, "VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks", arXiv:2405.15179,
section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from inlay.adapters import Facts, Linear
from inlay.adapters._linear import OnLinear


class Vblora(OnLinear):
    """Low-rank updates from a shared bank of vectors; mergeable."""

    title: ClassVar[str] = "VB-LoRA"
    paper: ClassVar[str] = "Li et al. 2024, arXiv:2405.15179"
    learning_rate: ClassVar[float] = 5e-3
    convertible: ClassVar[bool] = True
    peft_type: ClassVar[str] = "VBLORA"
    size: ClassVar[str] = "num_vectors"
    sizes: ClassVar[Sequence[int]] = range(64, 65537)
    saved: ClassVar[tuple[str, ...]] = ("r", "num_vectors", "vector_length", "topk", "target_modules")
    fresh: ClassVar[tuple[str, ...]] = ("init_vector_bank_bound", "init_logits_std")
    identity: ClassVar[bool] = False

    class Options(OnLinear.Options):
        """Options of VB-LoRA."""

        r: int = Field(4, ge=1, le=4096, description="rank of the update")
        num_vectors: int = Field(256, ge=2, le=1_048_576, description="vectors in the bank")
        vector_length: int | None = Field(
            None,
            ge=1,
            le=65536,
            description="numbers in a vector, which divide inputs and outputs of every target; by default the largest "
            "such number up to 256",
        )
        topk: int = Field(2, ge=1, le=64, description="vectors that make up a stretch")
        vblora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of A while training")
        init_vector_bank_bound: float = Field(0.02, gt=0, description="the bank is drawn between this and its negative")
        init_logits_std: float = Field(0.1, gt=0, description="standard deviation of the scores at the start")

        @model_validator(mode="after")
        def _bank_is_large_enough(self) -> Self:
            if self.topk > self.num_vectors:
                raise ValueError(f"topk ({self.topk}) is above num_vectors ({self.num_vectors})")
            return self

    options: Options

    def misfit(self, layer: Linear) -> str | None:
        length, inputs, outputs = self.options.vector_length, layer.in_features, layer.out_features
        if length and (inputs % length or outputs % length):
            return f"vector_length {length} does not divide its {inputs} inputs and {outputs} outputs"
        return None

    def weights(self, layer: Linear) -> int:
        return self.options.r * (layer.in_features + layer.out_features) * self.options.num_vectors

    def trainable(self, facts: Facts) -> int:
        length = self._length(facts)
        return self.options.num_vectors * length + super().trainable(facts) // length

    def _length(self, facts: Facts) -> int:
        """Numbers in a vector of the bank."""
        if self.options.vector_length:
            return self.options.vector_length
        layers = [facts.linears[name] for name in self.targets(facts)]
        common = math.gcd(*(side for layer in layers for side in (layer.in_features, layer.out_features)))
        return next(length for length in range(min(common, 256), 0, -1) if common % length == 0)

    def _fields(self, facts: Facts, seed: int) -> dict[str, object]:
        return super()._fields(facts, seed) | {"vector_length": self._length(facts)}
