"""`inlay chat`: talks to a run, an adapter or a model, with the prompt that it was trained on.

A run of a dialogue task, and a model that is no run, hold a conversation. A run of any other task answers each line by
itself, put into its prompt. `/base` asks the base without its adapter the same question.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import shlex
from collections.abc import Callable
from pathlib import Path

from inlay.eval import Decoding, Example, Reply, Turn
from inlay.tuner.adapter_folder import weights_sha256
from inlay.tuner.console import hushed
from inlay.tuner.problems import MachineError, RequestError
from inlay.tuner.serve.answers import answer
from inlay.tuner.serve.decoding import Wishes
from inlay.tuner.serve.opened import Opened, open_target
from inlay.tuner.serve.questions import STAND_IN, Questions, TooLong
from inlay.tuner.serve.screen import Screen, here

TUNED, BASE = "tuned", "base"  # who replies
HELP = """\
/base        asks the base without its adapter the same question
/reset       begins a new conversation
/save FILE   writes the conversation to a new file, as a row of `messages`
/help        this list
//...        says a line that begins with one slash
Ctrl-C ends a reply, Ctrl-D the chat"""


def chat(target: str, *, base: str | None, wishes: Wishes) -> bool:
    """Talks until the lines end.

    Args:
        target: a run's folder, an adapter's folder, or a model.
        base: the base of an adapter or run, where it is elsewhere now.
        wishes: decoding that is asked for in the place of the recipe's.

    Returns:
        Whether everything that was asked had an answer; at a terminal, where a person has seen it, always true.

    Raises:
        RequestError, MachineError: the target cannot be opened, or memory does not suffice.
    """
    screen = here()
    with hushed():
        opened = open_target(target, base=base, wishes=wishes)
        talk = Talk(opened, screen)
        if screen.live:
            for line in _heading(opened, talk.questions):
                screen.note(line)
        for line in screen.lines():
            talk.hear(line)
    return screen.live or not talk.unanswered


def _heading(opened: Opened, questions: Questions) -> list[str]:
    """Which files answer, and how."""
    base, target = opened.base, opened.target
    lines = [f"base: {base.files.name}, {base.quantization}, {base.compute_dtype}, sha256 {base.sha256[:12]}"]
    if target.adapter:
        lines.append(f"tuned: {target.method.title}, {target.name}, sha256 {weights_sha256(target.adapter)[:12]}")
    prompts = "chat template" if target.renderer.prompt_format == "chat template" else "plain prompts"
    return [*lines, questions.manner, f"{prompts}; {target.decoding.signature()}", "/help lists the commands"]


class Talk:
    """A chat with one model.

    Attributes:
        questions: how its lines are asked.
        unanswered: how many questions got no answer.
    """

    def __init__(self, opened: Opened, screen: Screen) -> None:
        self.questions = Questions(opened.target)
        self.unanswered = 0
        self._opened, self._target, self._screen = opened, opened.target, screen
        self._turns: list[Turn] = []
        self._forgotten = 0  # turns at the beginning that the model no longer reads
        self._replies = 0
        self._last: tuple[Example, Decoding] | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/base": self._ask_base,
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda _: self._screen.note(HELP),
        }

    def hear(self, line: str) -> None:
        """Takes one line: a question, or a command."""
        text = line.strip()
        if not text:
            return
        try:
            if text.startswith("/") and not text.startswith("//"):
                self._obey(text)
            else:
                self._ask(text.removeprefix("/") if text.startswith("//") else text)
        except (RequestError, MachineError) as failure:
            self.unanswered += 1
            for problem in failure.problems:
                self._screen.note(problem.message + (f"; {problem.help}" if problem.help else ""))

    def _obey(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if name not in self._commands:
            close = difflib.get_close_matches(name, self._commands, n=1)
            help = f"did you mean `{close[0]}`?" if close else "/help lists the commands; // says a line that begins so"
            raise RequestError(f"there is no command `{name}`", help=help)
        self._commands[name](rest.strip())

    def _ask(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError("this is not UTF-8 text") from None
        example = self._fitted(Turn("user", text)) if self.questions.conversation else self._alone(text)
        decoding = self._target.decoding
        self._last = example, dataclasses.replace(decoding, seed=decoding.seed + self._replies)
        said = self._answered(*self._last, TUNED if self._target.adapter else "")
        if said:
            self._turns += [Turn("user", text), Turn("assistant", said)]
            self._replies += 1

    def _alone(self, text: str) -> Example:
        example = self.questions.fitting(self.questions.line(text))
        if isinstance(example, TooLong):
            raise RequestError(f"not asked: {example}")
        return example

    def _fitted(self, turn: Turn) -> Example:
        """The question behind as much of the conversation as fits; what does not is left out from here on."""
        forgotten = self._forgotten
        while True:
            example = self.questions.fitting(Reply("", (*self._turns[forgotten:], turn), (STAND_IN,)))
            if not isinstance(example, TooLong):
                break
            if forgotten == len(self._turns):
                raise RequestError(f"not asked: {example}")
            forgotten += 2
        if forgotten > self._forgotten:
            more = forgotten - self._forgotten
            self._screen.note(
                f"the conversation is longer than the {self._target.context} tokens that this model reads: "
                f"its oldest {more} turns are left out from here on"
            )
            self._forgotten = forgotten
        return example

    def _answered(self, example: Example, decoding: Decoding, who: str) -> str:
        """The text of the answer, or of its beginning where Ctrl-C ended it."""
        opened, target = self._opened, self._target
        pieces: list[str] = []
        found = None
        try:
            with self._screen.reply(who) as tell:

                def heard(piece: str) -> None:
                    pieces.append(piece)
                    tell(piece)

                with opened.untouched() if who == BASE else contextlib.nullcontext(opened.scorable) as scorable:
                    found = answer(
                        scorable, target.renderer, example, decoding, batch_size=target.batch_size, heard=heard
                    )
        except KeyboardInterrupt:
            if not self._screen.live:
                raise
        if found is not None and not found.finished:
            self._screen.note(f"the reply ends at {decoding.max_new_tokens} tokens; --max-new-tokens allows more")
        return "".join(pieces)

    def _ask_base(self, rest: str) -> None:
        if self._target.adapter is None:
            raise RequestError(f"`{self._target.name}` has no adapter, so there is no base without it to ask")
        if self._last is None:
            raise RequestError("nothing has been asked yet", help="/base asks the last question again")
        self._answered(*self._last, BASE)

    def _reset(self, rest: str) -> None:
        self._turns.clear()
        self._forgotten, self._replies, self._last = 0, 0, None
        self._screen.note("a new conversation")

    def _save(self, name: str) -> None:
        """A line a conversation: where each line is answered by itself, an exchange is one."""
        if not name or not self._turns:
            raise RequestError("nothing was saved", help="/save FILE, after an answer")
        size = len(self._turns) if self.questions.conversation else 2
        lines = [
            {"messages": [{"role": turn.role, "content": turn.text} for turn in self._turns[i : i + size]]}
            for i in range(0, len(self._turns), size)
        ]
        try:
            with Path(name).expanduser().open("x", encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        except FileExistsError:
            raise RequestError(f"`{name}` exists already; nothing was saved", help="name a new file") from None
        except OSError as error:
            raise RequestError(f"`{name}` cannot be written: {error.strerror}") from None
        self._screen.note(f"saved to {shlex.quote(name)}")
