'''An Ollama Modelfile: the prompt format that was trained and the benchmark's decoding, beside a GGUF file.

    FROM ./model.gguf
    TEMPLATE """{{ range .Messages }}...{{ end }}"""       a Go template
    PARAMETER stop "<|im_end|>"

Ollama does not run the file's own (Jinja) chat template. The Go template is not translated from it either: the renderer
that training and benchmark share is asked to print a few conversations, what stands around the turns is read off, and
the result must then print other conversations as the renderer does, byte for byte. Where it does not (a template that
rewrites earlier turns, or prints a date) the Modelfile says so and has no TEMPLATE.

Source: Ollama's Modelfile reference and its template package, which gives a template `.Messages`, `.System` (the system
messages, joined) and the functions of Go's text/template.
'''

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from inlay.eval import Decoding, Turn
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export.chat_template import around
from inlay.tuner.export.vocabulary import start_tokens
from inlay.tuner.problems import RequestError

# Stand for the texts of turns while a prompt is taken apart: characters of no script.
SYSTEM, FIRST, REPLY, SECOND = "\ue001", "\ue002", "\ue003", "\ue004"
# Texts that a prompt is tried with.
TRIALS = (
    "Why?",
    'Two\n\nlines, "quoted" {braces} {{ and }} it\'s 50 % \\n.',
    "今天天气很好。 🙂",
    "# x - 1,234.5 " * 9 + ".",
)


@dataclass(frozen=True)
class Conversation:
    """What the trained prompt prints around the turns of a conversation.

    Attributes:
        opening: before the first user turn without a system message.
        system: before and after a system message that precedes it; None where the template knows none.
        reply: between a user turn and the reply to it.
        next: between a reply and the next user turn.
        answer: after the last user turn: what the model continues.
    """

    opening: str
    system: tuple[str, str] | None
    reply: str
    next: str
    answer: str

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The prompt of a conversation: a system turn or none, then user and assistant in turn."""
        text, opening = "", self.opening
        for turn in turns:
            if turn.role == "system" and self.system:
                opening = f"{self.system[0]}{turn.text}{self.system[1]}"
            elif turn.role == "assistant":
                text += self.reply + turn.text
            else:
                text += opening + turn.text
                opening = self.next
        return text + self.answer

    def go(self) -> str:
        """The Go template that prints the same. A reply that brings the space before it is given no second one."""
        opening = _literal(self.opening)
        if self.system:
            before, after = map(_literal, self.system)
            opening = f"{{{{ if $.System }}}}{before}{{{{ $.System }}}}{after}{{{{ else }}}}{opening}{{{{ end }}}}"
        reply = _literal(self.reply)
        if reply.endswith(" "):
            reply = f'{reply[:-1]}{{{{ if ne (printf "%.1s" .Content) " " }}}} {{{{ end }}}}'
        return "".join(
            (
                "{{ $next := false }}{{ range .Messages }}",
                '{{ if eq .Role "user" }}{{ if $next }}',
                _literal(self.next),
                "{{ else }}",
                opening,
                "{{ end }}{{ .Content }}{{ $next = true }}",
                '{{ else if eq .Role "assistant" }}',
                reply,
                "{{ .Content }}{{ end }}{{ end }}",
                _literal(self.answer),
            )
        )


@dataclass(frozen=True)
class Instruction:
    """What the trained prompt prints around the one text of a task: the last message, whatever came before it.

    Attributes:
        before, after: the message.
        message: what a message has to be where it is not the text of the one field, in words.
    """

    before: str
    after: str
    message: str = ""

    def go(self) -> str:
        """The Go template that prints them."""
        return (
            "{{ range $i, $_ := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}"
            f"{_literal(self.before)}{{{{ .Content }}}}{_literal(self.after)}{{{{ end }}}}{{{{ end }}}}"
        )


Asked = TypeVar("Asked", Conversation, Instruction)

# Of a model that was trained on texts as they stand.
CONTINUATION = Instruction("", "", "the beginning of a text")


def write_modelfile(
    file: Path,
    gguf: str,
    asked: Conversation | Instruction | str,
    renderer: Renderer,
    decoding: Decoding,
    *,
    context: int,
) -> None:
    """Writes the Modelfile of a GGUF file in the same folder.

    Args:
        file: what to write.
        gguf: the GGUF file's name.
        asked: how the model was trained to be asked: `conversation`, `instruction` or `CONTINUATION`; a text says why
            there can be no TEMPLATE.
        renderer: of the tokenizer that was trained with.
        decoding: the benchmark's.
        context: how many tokens prompt and reply take together, at most.
    """
    lines = ["# How this model was trained to be asked, and how it was benchmarked: ollama create NAME -f Modelfile"]
    if isinstance(asked, str):
        lines += [f"# No TEMPLATE: {asked}.", "# Send prompts as they were trained (`raw` in Ollama's API)."]
    elif isinstance(asked, Instruction) and asked.message:
        lines.append("# A message is " + "\n#     ".join(asked.message.splitlines()))
    lines.append(f"FROM ./{gguf}")
    if not isinstance(asked, str):
        lines.append(f'TEMPLATE """{asked.go()}"""')
    lines += [*_parameters(renderer, decoding), f"PARAMETER num_ctx {context}"]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def conversation(renderer: Renderer) -> Conversation | str:
    """What the renderer prints around the turns of a conversation, or why a Go template cannot print it."""
    if _dated(renderer):
        return "the chat template prints the date"
    user, reply, again = Turn("user", FIRST), Turn("assistant", REPLY), Turn("user", SECOND)
    try:
        opening, answer = _parts(renderer, (user,), FIRST)
        _, between, following, _ = _parts(renderer, (user, reply, again), FIRST, REPLY, SECOND)
    except RequestError as error:
        return error.problems[0].message
    try:
        before, after, _ = _parts(renderer, (Turn("system", SYSTEM), user), SYSTEM, FIRST)
        system = (before, after)
    except RequestError:  # many templates know no system message
        system = None
    found = Conversation(opening, system, between, following, answer)
    try:
        whole = all(found.prompt(turns) == renderer.prompt_text(turns) for turns in _trials(system is not None))
    except RequestError as error:
        return error.problems[0].message
    if not whole:
        return "the chat template prints a turn otherwise when others come before or after it"
    return _written(
        replace(
            found,
            opening=_without_start(renderer, opening),
            system=system and (_without_start(renderer, system[0]), system[1]),
        )
    )


def instruction(renderer: Renderer, task_prompt: str) -> Instruction | str:
    """What the renderer prints around the one text of a task's prompt, or why a Go template cannot print it.

    Args:
        renderer: of the tokenizer that was trained with.
        task_prompt: the recipe's, `{document}\\n\\nSummary:` say. Of several fields or none, a message is the whole.
    """
    if _dated(renderer):
        return "the chat template prints the date"
    found = around(task_prompt)
    before, after = found or ("", "")
    try:
        opening, closing = _parts(renderer, (Turn("prompt", before + FIRST + after),), FIRST)
        whole = [renderer.prompt_text((Turn("prompt", before + text + after),)) for text in TRIALS]
    except RequestError as error:
        return error.problems[0].message
    if whole != [opening + text + closing for text in TRIALS]:
        return "the chat template prints a message otherwise than it is"
    message = "" if found else f"the whole prompt:\n{task_prompt}"
    return _written(Instruction(_without_start(renderer, opening), closing, message))


def _parts(renderer: Renderer, turns: Sequence[Turn], *marks: str) -> list[str]:
    """The trained prompt of these turns, cut at the marks."""
    text, parts = renderer.prompt_text(turns), []
    for mark in marks:
        part, found, text = text.partition(mark)
        if not found or mark in text:
            raise RequestError("the chat template does not print every turn once")
        parts.append(part)
    return [*parts, text]


def _trials(system: bool) -> list[tuple[Turn, ...]]:
    """Conversations of one to three user turns, with a system message and without."""
    turns = [Turn("user" if i % 2 == 0 else "assistant", TRIALS[i % len(TRIALS)]) for i in range(5)]
    plain = [tuple(turns[:length]) for length in (1, 3, 5)]
    return plain + [(Turn("system", TRIALS[1]), *turns) for turns in plain if system]


def _dated(renderer: Renderer) -> bool:
    return "strftime_now" in str(renderer.tokenizer.chat_template)


def _without_start(renderer: Renderer, text: str) -> str:
    """The text without the start token that the template prints, where Ollama puts one before every prompt itself."""
    start = start_tokens(renderer.tokenizer)
    return text.removeprefix(renderer.tokenizer.convert_ids_to_tokens(start[0])) if start else text


def _written(asked: Asked) -> Asked | str:
    """The same, if a Modelfile keeps its template: it ends at three quotation marks and drops what has no print."""
    template = asked.go()
    if '"""' in template or not all(letter.isprintable() or letter in "\n\t" for letter in template):
        return "the trained prompt holds characters that a Modelfile cannot"
    return asked


def _literal(text: str) -> str:
    """A text in a Go template: braces would open an action."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if "{" in text else text


def _parameters(renderer: Renderer, decoding: Decoding) -> list[str]:
    """Where a reply ends, and how its tokens are chosen; what Ollama would do by itself is switched off."""
    stops = [renderer.tokenizer.convert_ids_to_tokens(token) for token in renderer.stop_ids]
    lines = [f'PARAMETER stop "{stop}"' for stop in stops if stop.isprintable() and '"' not in stop]
    if decoding.do_sample:
        lines += [
            f"PARAMETER temperature {decoding.temperature:g}",
            f"PARAMETER top_p {decoding.top_p:g}",
            f"PARAMETER top_k {decoding.top_k}",
            "PARAMETER min_p 0",
            f"PARAMETER seed {decoding.seed}",
        ]
    else:
        lines.append("PARAMETER temperature 0")
    lines.append(f"PARAMETER repeat_penalty {decoding.repetition_penalty:g}")
    if decoding.repetition_penalty != 1.0:
        lines.append("PARAMETER repeat_last_n -1")
    if decoding.num_beams > 1:
        lines.append(f"# The benchmark searched with {decoding.num_beams} beams, which Ollama does not.")
    return [*lines, f"PARAMETER num_predict {decoding.max_new_tokens}"]
