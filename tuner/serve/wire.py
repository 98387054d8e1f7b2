"""What goes over the wire: the requests and answers of OpenAI's API, as far as they have a meaning here.

A field that would have no effect is refused, not ignored; one that asks for what happens anyway is taken.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Word = Annotated[str, Field(min_length=1, max_length=256)]
Nothing = Annotated[float, Field(ge=0, le=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(_Part):
    """A part of a message; only text can be read."""

    type: Literal["text"]
    text: str


class Message(_Part):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """All that it says."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_Part):
    """`include_usage`: the numbers of tokens in a last chunk."""

    include_usage: bool = False


class Asked(_Part):
    """What requests of both kinds hold. Without `temperature`, a model answers as its recipe says, else greedily.
    Without `seed`, what is drawn is another each time."""

    subject: ClassVar[str]  # the field that holds what is asked

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**32 - 1)
    stop: Word | Annotated[list[Word], Field(max_length=4)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    user: str | None = None
    presence_penalty: Nothing | None = None
    frequency_penalty: Nothing | None = None

    @model_validator(mode="before")
    @classmethod
    def _holds_text(cls, asked: Any) -> Any:
        """JSON can spell half a character (`\\ud800`), which no tokenizer reads and no answer could repeat."""
        try:
            json.dumps(asked, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text in it holds half a surrogate pair, which is no character") from None
        return asked

    @property
    def until(self) -> tuple[str, ...]:
        """Words before which a reply ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def longest(self) -> int | None:
        """Tokens of the longest reply."""
        return self.max_tokens

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatAsked(Asked):
    """A request for the next message of a conversation."""

    subject = "messages"

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: Literal[False] | None = None

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionAsked(Asked):
    """A request to go on with a text as it stands, or with several."""

    subject = "prompt"

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=64)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None
    suffix: None = None

    @property
    def prompts(self) -> list[str]:
        """All of them."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


def usage(prompt: int, completion: int) -> dict[str, int]:
    """The numbers of tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def head(kind: str, identity: str, model: str) -> dict[str, Any]:
    """What every answer and every chunk begins with."""
    return {"id": identity, "object": kind, "created": int(time.time()), "model": model}


def error(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """A mistake, as clients of that API expect it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(content: dict[str, Any] | None) -> str:
    """A server-sent event; None ends the stream."""
    return f"data: {'[DONE]' if content is None else json.dumps(content, ensure_ascii=False)}\n\n"
