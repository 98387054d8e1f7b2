"""A chat template (Jinja) that prints inlay's plain format, for files whose tokenizer has none.

Without one, llama.cpp and LM Studio put ChatML around a conversation, which such a model has never seen.
"""

from __future__ import annotations

import json
import string

from inlay.tuner.data.rendering import SPEAKERS

CONVERSATION = (
    "{% for message in messages %}"
    "{{ SPEAKERS[message['role']] + ': ' + message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ SPEAKERS['assistant'] + ':' }}{% endif %}"
)


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
