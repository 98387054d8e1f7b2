"""The chat template (Jinja) of an export: what it renders is the prompt that was trained.

A tokenizer that has none gets one that prints inlay's plain format: without it, llama.cpp and LM Studio put ChatML
around a conversation, which such a model has never seen. One that opens an answer otherwise than its generation prompt
ends (Qwen3's, with an empty block of thoughts) gets the rest of that opening behind the prompt.
"""

from __future__ import annotations

import json
import string

from inlay.tuner.data.rendering import SPEAKERS, Renderer

CONVERSATION = (
    "{% for message in messages %}"
    "{{ SPEAKERS[message['role']] + ': ' + message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ SPEAKERS['assistant'] + ':' }}{% endif %}"
)


def trained_template(renderer: Renderer, task_prompt: str | None) -> str:
    """The template whose generation prompt is what the renderer has the model read.

    Args:
        renderer: of the tokenizer that was trained with.
        task_prompt: the recipe's; None for conversations.
    """
    if renderer.prompt_format == "plain":
        return plain_template(task_prompt)
    own, lead = str(renderer.tokenizer.get_chat_template()), renderer.lead
    if not lead:
        return own
    # Qwen3's prints the same block itself where it is asked for no thoughts.
    switch = " and not (enable_thinking is defined and enable_thinking is false)" if "enable_thinking" in own else ""
    printed = f"{{% if add_generation_prompt{switch} %}}{{{{ {json.dumps(lead, ensure_ascii=False)} }}}}{{% endif %}}"
    return own.removesuffix("\n") + printed  # Jinja drops a line end, where it is the last


def plain_template(task_prompt: str | None) -> str:
    """The template of conversations, or of a task's prompt, whose one field is the last message; of several fields or
    none, the last message is the whole prompt."""
    if task_prompt is None:
        return f"{{% set SPEAKERS = {json.dumps(SPEAKERS)} %}}{CONVERSATION}"
    before, after = (json.dumps(text, ensure_ascii=False) for text in around(task_prompt) or ("", ""))
    return f"{{{{ {before} + messages[-1]['content'] + {after} }}}}"


def around(task_prompt: str) -> tuple[str, str] | None:
    """What stands before and after the field of a prompt template that has exactly one, once."""
    pieces = list(string.Formatter().parse(task_prompt))
    fields = [place for place, (_, name, _, _) in enumerate(pieces) if name is not None]
    if len(fields) != 1:
        return None
    literals = [literal for literal, _, _, _ in pieces]
    return "".join(literals[: fields[0] + 1]), "".join(literals[fields[0] + 1 :])
