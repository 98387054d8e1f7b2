"""Which modules a list of names means, and what to say when a name means none. PEFT itself is silent where one name of
several matches nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal

from inlay.adapters import Facts

OUTSIDE_BLOCKS = ("lm_head", "embed_out", "embed_tokens", "wte", "wpe", "shared", "embed_in", "embed_positions")


def means(name: str, module: str) -> bool:
    """Whether `name` stands for `module`: PEFT's rule, the full name or whole trailing parts of it."""
    return module == name or module.endswith(f".{name}")


Linears = Literal["all-linear"] | tuple[str, ...]
"""What a recipe says of the linear layers that a method changes: all inside the blocks, or names of some."""


def linears(names: Linears, facts: Facts) -> tuple[str, ...]:
    """The linear layers that are meant."""
    return tuple(facts.linears) if names == "all-linear" else matching(names, facts.linears)


def refusal_of_linears(names: Linears, facts: Facts) -> str | None:
    """As `refusal`, for linear layers."""
    return None if names == "all-linear" else refusal(names, facts.linears, facts)


def matching(names: Iterable[str], modules: Iterable[str]) -> tuple[str, ...]:
    """The modules that any of `names` stands for, in the order of `modules`."""
    wanted = tuple(names)
    return tuple(module for module in modules if any(means(name, module) for name in wanted))


def refusal(names: Sequence[str], candidates: Iterable[str], facts: Facts) -> str | None:
    """What is wrong with the first of `names` that stands for none of `candidates`; None where all stand for some."""
    modules = tuple(candidates)
    for name in names:
        if any(means(name, module) for module in modules):
            continue
        leaf = name.rsplit(".", 1)[-1]
        if leaf in OUTSIDE_BLOCKS and any(means(name, module) for module in facts.modules):
            why = (
                "input embedding and output head of this base are one tensor, and an adapter on one side only would "
                "be lost or doubled when it is merged"
                if facts.tied
                else "only layers inside the transformer blocks are"
            )
            return f"target `{name}` cannot be adapted: {why}"
        if any(means(name, module) for module in facts.modules):
            return f"target `{name}` cannot be adapted: it is not a linear layer of this {facts.model_type} base"
        return f"target `{name}` matches no module of this {facts.model_type} base{_nearest(name, modules)}"
    return None


def _nearest(name: str, modules: Iterable[str]) -> str:
    """`; did you mean ...?` with the closest trailing part of as many levels as `name` has, or the names there are."""
    levels = name.count(".") + 1
    tails = list(dict.fromkeys(".".join(module.split(".")[-levels:]) for module in modules))
    close = difflib.get_close_matches(name, tails, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f" (known: {', '.join(dict.fromkeys(tail.rsplit('.', 1)[-1] for tail in tails))})"
