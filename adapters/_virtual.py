"""What the methods that put virtual tokens before a text have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from inlay.adapters import Facts, Method, Training
from inlay.adapters import Options as BaseOptions


class Virtual(Method):
    """Virtual tokens before the text: they take positions of the context, and cannot be merged."""

    prepends: ClassVar[Literal["nothing", "tokens", "keys"]] = "tokens"
    identity: ClassVar[bool] = False
    mergeable: ClassVar[bool] = False
    size: ClassVar[str] = "num_virtual_tokens"
    sizes: ClassVar[Sequence[int]] = range(1, 4097)
    saved: ClassVar[tuple[str, ...]] = ("num_virtual_tokens",)

    class Options(BaseOptions):
        """The option that all of them have."""

        num_virtual_tokens: int = Field(16, ge=1, le=4096, description="virtual tokens before the text")

    options: Options

    @property
    def prepended(self) -> int:
        return self.options.num_virtual_tokens

    def refusal(self, facts: Facts, training: Training) -> str | None:
        if reason := super().refusal(facts, training):
            return reason
        if facts.context is not None and self.prepended >= facts.context:
            return f"{self.prepended} virtual tokens leave no room for text in {facts.context} positions"
        return None
