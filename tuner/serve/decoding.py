"""Decoding as it is asked for on the command line, in the place of what a recipe says."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pydantic import ValidationError

from inlay.eval import Decoding
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.recipe import DecodingOptions

GREEDY = 0.0  # the temperature that stands for it


@dataclass(frozen=True)
class Wishes:
    """What is asked for; None leaves it as it is.

    Attributes:
        max_new_tokens: longest reply.
        temperature: above 0, replies are drawn; 0 takes the likeliest token each time.
        top_p, top_k: narrow what is drawn from, so they ask for drawing too.
        seed: of what is drawn.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None

    def applied(self, decoding: Decoding, context: int | None) -> Decoding:
        """The decoding with these wishes.

        Args:
            context: tokens for prompt and reply together; None where there is no limit.

        Raises:
            RequestError: a value is out of range, they contradict each other, or the reply fills the context.
        """
        asked = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        drawn = [name for name in ("top_p", "top_k") if name in asked]
        if self.temperature == GREEDY:
            if drawn:
                raise RequestError(f"{_flag(drawn[0])} draws tokens, and --temperature 0 takes the likeliest one")
            del asked["temperature"]
            asked["do_sample"] = False
        elif drawn or self.temperature is not None:
            asked |= {"do_sample": True, "num_beams": 1}
        changed = dataclasses.replace(decoding, **asked)
        if self.seed is not None and not changed.do_sample:
            raise RequestError("--seed has no effect where nothing is drawn", help="add --temperature 0.7, say")
        _require_valid(changed)
        if context is not None and changed.max_new_tokens >= context:
            message = f"a reply of {changed.max_new_tokens} tokens leaves no room for a prompt: {context} fit in all"
            raise RequestError(message, help=f"--max-new-tokens {max(1, context // 2)}")
        return changed


def _require_valid(decoding: Decoding) -> None:
    """The ranges are those of a recipe."""
    if not 0 <= decoding.seed < 2**32:
        raise RequestError(Problem(f"--seed is {decoding.seed}; expected 0 to {2**32 - 1}"))
    fields = {name: value for name, value in dataclasses.asdict(decoding).items() if name != "seed"}
    try:
        DecodingOptions.model_validate(fields)
    except ValidationError as error:
        raise RequestError(
            [Problem(f"{_flag(str(e['loc'][0]))} is {e['input']}; {_expected(e['msg'])}") for e in error.errors()]
        ) from None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _expected(said: str) -> str:
    return f"expected a value that is {said.removeprefix('Input should be ')}"
