"""What methods that put virtual tokens before a text share."""

from __future__ import annotations

from inlay.adapters import Facts


def refusal(tokens: int, facts: Facts) -> str | None:
    """Why so many virtual tokens cannot be: they leave no room in the base's context; None where they do."""
    if facts.context is not None and tokens >= facts.context:
        return f"{tokens} virtual tokens leave no room for text in {facts.context} positions"
    return None
