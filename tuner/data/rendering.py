"""Examples to token ids: the one function that training, scoring and generation share.

A conversation is a chain of pieces, one for each assistant turn: a header that the model reads, an answer that it is to
write, and an end. Each piece is tokenized by itself, so the ids of a prompt never depend on the answer that follows it,
and what the model sees in training before an answer is, token for token, what it sees when it is asked to generate.

With a chat template the texts of the pieces are the template's. Blanks that it prints around an answer are the model's
to write, as they are in the plain format: most tokenizers make one token of a word and the space before it. Other text
before an answer (Qwen3's empty block of thoughts) is read, so a prompt goes on with it; see `Renderer.lead`. Without a
template the texts are plain:

    System: ...\\n               a task's prompt stands as it is, and its answer after one space:
    User: ...\\n
    Bot: ANSWER<eos>\\n           {document}\\n\\nSummary: ANSWER<eos>

A text to be read as it stands is tokenized whole, between the tokenizer's own start token and an end of text. What is
longer than the model takes is cut: in training into rows one after the other; in a benchmark into windows that overlap,
each of which scores its last `stride` tokens alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inlay.eval import Example, Text, Turn
from inlay.tuner.problems import Problem, RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPEAKERS = {"system": "System", "user": "User", "assistant": "Bot"}
# Put before a text to keep SentencePiece tokenizers from writing a space before it; see `_tokenize_behind`.
ANCHORS = ("\n", ".", "x", "0")
# Put before what goes on with a text, for decoders that take the first blank of a text away: a single token in every
# vocabulary, and no byte.
LEAD = "."
# How tokenizers that fall back to bytes write one.
BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
# Stands for an answer when a chat template is asked what it prints around one: a character of no script.
PROBE = "\ue000"


@dataclass(frozen=True)
class Rendered:
    """One training row.

    Attributes:
        ids: decoder tokens; for a sequence-to-sequence model, the answer alone.
        trained: for each of them, whether it is a label.
        source: encoder tokens; empty for a causal model.
        answer_start: where the last answer begins in `ids`.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    source: tuple[int, ...]
    answer_start: int


@dataclass(frozen=True)
class _Piece:
    header: str
    answer: str
    end: str
    trained: bool
    behind: str = ""  # the end of the piece before, which its header is tokenized with


class Renderer:
    """Renders examples for one tokenizer.

    Attributes:
        prompt_format: `chat template` or `plain`.
        stop_ids: tokens at which generation ends.
        row_length: longest training row that is cut from a text, in tokens.
        window, stride: of a text in the benchmark, a window's length and how many new tokens each scores.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        kind: Literal["causal", "seq2seq"],
        loss_on: Literal["answer", "all"] = "answer",
        *,
        row_length: int = 1024,
        window: int = 1024,
        stride: int = 512,
    ) -> None:
        self.tokenizer = tokenizer
        self.row_length, self.window, self.stride = row_length, window, stride
        self.kind = kind
        self.loss_on = loss_on
        self._plain = not tokenizer.chat_template
        self.prompt_format = "plain" if self._plain else "chat template"
        self._eos = int(tokenizer.eos_token_id)
        self._specials = frozenset(tokenizer.all_special_ids) | frozenset(
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        )
        self._marks = tuple(str(tokenizer.convert_ids_to_tokens(i)) for i in sorted(self._specials))
        self._bos = self._start_ids()
        self.stop_ids = tuple(dict.fromkeys((self._eos, self._end_id())))

    @property
    def starts(self) -> bool:
        """The tokenizer puts a start token before a text."""
        return bool(self._bos)

    @property
    def lead(self) -> str:
        """What the chat template prints before an answer and leaves out of its generation prompt: read, not written."""
        turns = (Turn("user", "a"),)
        return "" if self._plain else self._around(turns, self._template(turns, open_answer=True))[0]

    @property
    def pad_id(self) -> int:
        """What batches are filled up with; never read, never a label."""
        pad = self.tokenizer.pad_token_id
        return self._eos if pad is None else int(pad)

    def prompt_ids(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """What the model reads before it answers; for a sequence-to-sequence model, the encoder's tokens."""
        if self.kind == "seq2seq":
            return tuple(self.tokenizer(self.prompt_text(turns), split_special_tokens=self._plain)["input_ids"])
        pieces = self._pieces((*turns, Turn("assistant", "")))
        ids = [token for piece in pieces[:-1] for token in self._encode_piece(piece)[0]]
        ids += self._header_ids(pieces[-1])
        return (*self._start(ids), *ids)

    def prompt_text(self, turns: Sequence[Turn]) -> str:
        """The text of `prompt_ids`; an end of text that the tokenizer appends to an encoder's tokens is left out."""
        pieces = self._pieces((*turns, Turn("assistant", "")))
        eos = str(self.tokenizer.eos_token) if self._plain and self.kind == "causal" else ""
        return "".join(piece.header + piece.answer + eos + piece.end for piece in pieces[:-1]) + pieces[-1].header

    def opening_ids(self, text: str) -> tuple[int, ...]:
        """What a causal model reads of a text that it is to go on with: no end of text behind it."""
        return self._text_ids(text)[:-1]

    def marked_ids(self, text: str) -> tuple[int, ...]:
        """What the model, or its encoder, reads of a text in which marks are marks, as a chat template writes them. A
        start token that the text begins with is the only one."""
        if self.kind == "seq2seq":
            return tuple(self.tokenizer(text, split_special_tokens=False)["input_ids"])
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
        return (*self._start(ids), *ids)

    def answer_ids(self, turns: Sequence[Turn], answer: str) -> tuple[int, ...]:
        """The tokens of `answer` after these turns, up to and with the token that ends it."""
        if self.kind == "seq2seq":
            return (*self._plain_ids(answer.strip()), self._eos)
        ids, trained, _ = self._encode_piece(self._pieces((*turns, Turn("assistant", answer)))[-1])
        return tuple(token for token, label in zip(ids, trained, strict=True) if label)

    def rows(self, example: Example) -> list[Rendered]:
        """The training rows of one example: one, or one a trained turn where the template or the model needs it; of a
        text, one for each part that fits, the last token of a part repeated as the first of the next, untrained."""
        if isinstance(example, Text):
            ids = self._text_ids(example.text)
            parts = [ids[i : i + self.row_length] for i in range(0, max(len(ids) - 1, 1), self.row_length - 1)]
            return [Rendered(part, (False, *[True] * (len(part) - 1)), (), 0) for part in parts]
        turns = (*example.turns, Turn("assistant", example.answer, trained=True))
        wanted = [i for i, turn in enumerate(turns) if turn.trained]
        if self.kind == "seq2seq":
            return [self._pair(turns[:i], turns[i].text) for i in wanted]
        if len(wanted) > 1 and not self._stable(turns):
            return [self._row((*_untrained(turns[:i]), turns[i])) for i in wanted]
        return [self._row(turns)]

    def windows(self, text: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """A text in windows of (tokens that are read, tokens after them that are scored). Each token is scored once,
        but for the first of all, before which nothing stands. The windows begin `stride` tokens apart."""
        ids = self._text_ids(text)
        pairs, begin, scored = [], 0, 1
        while scored < len(ids):
            end = min(begin + self.window, len(ids))
            pairs.append((ids[begin:scored], ids[scored:end]))
            begin, scored = begin + self.stride, end
        return pairs

    def unscored(self, text: str) -> str:
        """The beginning of a text that `windows` does not score: its first token, where no start token precedes it."""
        return "" if self._bos else self._text(self._text_ids(text)[:1])

    def decode(self, ids: Sequence[int]) -> str:
        """Generated ids to text: cut at the first stop token, special tokens left out, outer blanks stripped."""
        return self._written(ids).strip()

    def continuation(self, ids: Sequence[int]) -> str:
        """As `decode`, of ids that go on with a text: with its outer blanks, it joins to the text as it stands."""
        lead = self._plain_ids(LEAD)
        return self._written([*lead, *ids])[len(self._written(lead)) :]

    def is_byte(self, token: int) -> bool:
        """Whether a token is a byte, which may change what the bytes right before it are decoded to."""
        return BYTE.fullmatch(str(self.tokenizer.convert_ids_to_tokens(token))) is not None

    def _written(self, ids: Sequence[int]) -> str:
        kept = list(itertools.takewhile(lambda token: token not in self.stop_ids, ids))
        return self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _text_ids(self, text: str) -> tuple[int, ...]:
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return (*self._bos, *ids, self._eos)

    def _row(self, turns: Sequence[Turn]) -> Rendered:
        ids: list[int] = []
        trained: list[bool] = []
        answer_start = 0
        for piece in self._pieces(turns):
            new, labels, header = self._encode_piece(piece)
            answer_start = len(ids) + header
            ids += new
            trained += [label and piece.trained for label in labels]
        start = self._start(ids)
        ids, trained = [*start, *ids], [*[False] * len(start), *trained]
        if self.loss_on == "all":
            trained = [True] * len(ids)
        return Rendered(tuple(ids), tuple(trained), (), len(start) + answer_start)

    def _pair(self, turns: Sequence[Turn], answer: str) -> Rendered:
        ids = self.answer_ids(turns, answer)
        return Rendered(ids, (True,) * len(ids), self.prompt_ids(turns), 0)

    def _pieces(self, turns: Sequence[Turn]) -> list[_Piece]:
        """Cuts the turns at every assistant turn; the last turn is one."""
        if self.prompt_format == "plain":
            return _plain_pieces(turns)
        pieces, done, stops = [], "", True
        for i, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            before = self._template(turns[:i], open_answer=True)
            # The template rewrites history, or marks no end in it that a piece could be cut at: it is all one header.
            if not (stops and before.startswith(done)):
                pieces, done = [], ""
            lead, opening, closing, end = self._around(turns[:i], before)
            answer = opening + turn.text.strip() + closing
            behind = pieces[-1].end if pieces else ""
            pieces.append(_Piece(before[len(done) :] + lead, answer, end, turn.trained, behind))
            done, stops = before + lead + answer + end, self._stop(self._plain_ids(end)) is not None
        return pieces

    def _around(self, turns: Sequence[Turn], before: str) -> tuple[str, str, str, str]:
        """What the template prints around the answer to these turns, whose generation prompt is `before`: what is read
        of it, the blanks before the answer, those behind it that stand before a special token, and the end."""
        around = self._template((*turns, Turn("assistant", PROBE)), open_answer=False)
        opening, found, end = around.rpartition(PROBE)
        if not found:
            raise RequestError(Problem("the chat template does not print what the assistant says", path="base.model"))
        lead = opening[len(before) :] if opening.startswith(before) else ""
        closing = end[: len(end) - len(end.lstrip())] if self._stop(self._plain_ids(end)) is not None else ""
        end = end[len(closing) :]
        return (lead, "", closing, end) if lead.strip() else ("", lead, closing, end)

    def _template(self, turns: Sequence[Turn], *, open_answer: bool) -> str:
        messages = [{"role": "user" if t.role == "prompt" else t.role, "content": t.text} for t in turns]
        spelled = next((token for t in turns for token in self._marks if token in t.text), None)
        if spelled:
            raise RequestError(
                Problem(
                    f"the text spells `{spelled}`, which this base reads as a mark of its own",
                    help="remove or rewrite it: the model would take it for the end of a turn, or the start of one",
                )
            )
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_answer)
        except Exception as error:  # a template raises what it likes
            said = (str(error).splitlines() or ["it does not say why"])[0]
            raise RequestError(
                Problem(
                    f"the chat template refuses this conversation: {said}",
                    path="base.model",
                    help="many templates know no system message, or want user and assistant to alternate",
                )
            ) from error

    def _stable(self, turns: Sequence[Turn]) -> bool:
        """Whether all assistant turns fit in one row: history is rendered the same however it goes on."""
        return len(self._pieces(turns)) == sum(turn.role == "assistant" for turn in turns)

    def _encode_piece(self, piece: _Piece) -> tuple[list[int], list[bool], int]:
        """Ids of header, answer and end; which of them are the answer's up to its end token; the header's length."""
        header = self._header_ids(piece)
        read = [*self._plain_ids(piece.behind), *header]
        answer = self._tokenize_behind(read, piece.behind + piece.header, piece.answer)
        end = self._plain_ids(piece.end)
        stop = self._stop(end)
        if stop is None:  # the template ends no turn with a special token, so the model's own end of text does
            end, stop = [self._eos, *end], 0
        labels = [False] * len(header) + [True] * (len(answer) + stop + 1) + [False] * (len(end) - stop - 1)
        return [*header, *answer, *end], labels, len(header)

    def _header_ids(self, piece: _Piece) -> list[int]:
        return self._tokenize_behind(self._plain_ids(piece.behind), piece.behind, piece.header)

    def _stop(self, end: Sequence[int]) -> int | None:
        """Where the first special token stands in what ends an answer."""
        return next((i for i, token in enumerate(end) if token in self._specials), None)

    def _tokenize_behind(self, before_ids: list[int], before: str, text: str) -> list[int]:
        """The tokens of a text such that they and those before it together decode to before + text.

        The joint tokenization is cut where the text begins if that falls between two tokens. Otherwise the text is
        tokenized by itself; SentencePiece tokenizers then write a space before it, which is undone by tokenizing it
        without its own leading space, or behind an anchor that is cut off again.
        """
        joint = self._plain_ids(before + text)
        if joint[: len(before_ids)] == before_ids:
            return joint[len(before_ids) :]
        candidates = [self._plain_ids(text)]
        if text.startswith(" "):
            candidates.append(self._plain_ids(text[1:]))
        for anchor in ANCHORS:
            ids, both = self._plain_ids(anchor), self._plain_ids(anchor + text)
            if both[: len(ids)] == ids:
                candidates.append(both[len(ids) :])
        expected = self._text(self._plain_ids(before)) + text
        return next((ids for ids in candidates if self._text([*before_ids, *ids]) == expected), candidates[0])

    def _text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _start(self, ids: Sequence[int]) -> tuple[int, ...]:
        """What stands before the ids of a row: what the tokenizer puts there, unless the template has printed it."""
        return () if tuple(ids[: len(self._bos)]) == self._bos else self._bos

    def _plain_ids(self, text: str) -> list[int]:
        """The ids of a text. In the plain format it holds data alone, where `</s>` is four characters and no end."""
        if not text:
            return []
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=self._plain)["input_ids"]

    def _start_ids(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before a plain text: nothing, or one token."""
        bare, full = self._plain_ids("a"), self.tokenizer("a")["input_ids"]
        for start in range(len(full) - len(bare) + 1):
            if full[start : start + len(bare)] == bare:
                return tuple(full[:start])
        return ()

    def _end_id(self) -> int:
        """The token that ends an assistant turn in the chat template, or the end of text."""
        if self.prompt_format == "plain":
            return self._eos
        end = self._plain_ids(self._pieces((Turn("user", "a"), Turn("assistant", "b")))[-1].end)
        stop = self._stop(end)
        return self._eos if stop is None else end[stop]


def _untrained(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple(Turn(turn.role, turn.text) for turn in turns)


def _plain_pieces(turns: Sequence[Turn]) -> list[_Piece]:
    pieces, header = [], ""
    for turn in turns:
        if turn.role == "assistant":
            opened = header if header and turns[0].role == "prompt" else f"{header}{SPEAKERS['assistant']}:"
            text = turn.text.strip()
            pieces.append(_Piece(opened, f" {text}" if text else "", "", turn.trained))
            header = "\n"
        else:
            header += turn.text if turn.role == "prompt" else f"{SPEAKERS[turn.role]}: {turn.text.strip()}\n"
    return pieces
