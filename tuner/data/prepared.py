"""Data as a run uses it: read, rendered, fitted to the model's length, counted.

No row disappears: a row that is too long is cut where the recipe allows it (the document, never the answer), or left
out, counted and told; and where more than a small share would be left out, the run does not start.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Protocol, TypeVar

from inlay.eval import Choice, Example, Text
from inlay.tuner.data.columns import Columns
from inlay.tuner.data.few_shot import choose
from inlay.tuner.data.formats import Row
from inlay.tuner.data.overlap import Sifted, sift
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.data.sources import Source, open_splits
from inlay.tuner.data.tasks import Task
from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.recipe import Recipe
from inlay.tuner.records import DataRecord, InputFile

Values = Mapping[str, object]
HALVINGS = 12
PROBLEMS_SHOWN = 5


@dataclass(frozen=True)
class TrainingRow:
    """One row.

    Attributes:
        id: of the data row it comes from.
        ids: decoder tokens.
        trained: for each of them, whether it is a label. A padding token never is, and an end of text that happens to
            be the padding token is one where it ends an answer: labels come from positions, not from ids.
        source: encoder tokens of a sequence-to-sequence model; empty for a causal one.
    """

    id: str
    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    source: tuple[int, ...] = ()

    @property
    def labels(self) -> int:
        """Tokens that the loss is summed over; a causal model never predicts its first token."""
        return sum(self.trained if self.source else self.trained[1:])


Made = TypeVar("Made")


class Make(Protocol[Made]):
    """From a row's values and name to what is kept of it, and its length in tokens."""

    def __call__(self, values: Values, name: str) -> tuple[list[Made], int]: ...


@dataclass(frozen=True)
class Limits:
    """Longest row in tokens.

    Attributes:
        training: of a training row; for a sequence-to-sequence model, of each of its two sides.
        context: of prompt and answer together in the benchmark; None where there is no limit.
        new_tokens: room that generation needs behind a prompt.
    """

    training: int
    context: int | None
    new_tokens: int


@dataclass(frozen=True)
class Prepared:
    """What training and benchmark take, and the record of it. `training`: none where they were left out; `examples` by
    split; `shown`: training examples for the context of a few-shot prompt."""

    training: tuple[TrainingRow, ...]
    examples: Mapping[str, tuple[Example, ...]]
    shown: tuple[Example, ...]
    record: DataRecord


@dataclass
class _Tally:
    """What happened to the rows of one split."""

    rows: int = 0
    left_out: int = 0
    cut: int = 0
    tokens: int = 0
    longest: int = 0
    ids: Counter[str] = field(default_factory=Counter)

    def name(self, row: Row) -> str:
        """The row's id; a repeated row gets a number, so that ids stay apart."""
        self.ids[row.id] += 1
        return row.id if self.ids[row.id] == 1 else f"{row.id}~{self.ids[row.id]}"


def prepare(
    recipe: Recipe, task: Task, renderer: Renderer, limits: Limits, splits: Sequence[str], *, train: bool = True
) -> Prepared:
    """Reads the training rows and the named other splits, and renders them.

    Args:
        train: whether rows to train on are wanted, and to compare the others with. Without, no training row is read but
            for what a task has to learn from them.

    Raises:
        RequestError: rows are malformed, a label is unknown, or too many rows are too long.
        MachineError: a hub dataset cannot be reached.
    """
    used = tuple(dict.fromkeys(("train", *splits) if train else splits))
    wanted = used if train or not task.learns else ("train", *used)
    opened = open_splits(source(recipe), Columns(task.columns_for(task.prompt), recipe.task.columns), wanted)
    given = opened.rows.get("train", [])
    task.learn([row.values for row in given])
    measured = {split: opened.rows[split] for split in wanted if split != "train"}
    sifted = sift(task, given, measured, recipe.task.overlap) if train else Sifted(given, {}, 0)
    tallies = {split: _Tally() for split in used}
    training = _fit_training(recipe, task, renderer, limits.training, sifted.rows, tallies["train"]) if train else []
    examples = {
        split: _fit_examples(recipe, task, renderer, limits, opened.rows[split], tallies[split])
        for split in wanted
        if split in splits
    }
    _refuse_many_left_out(recipe, limits, tallies)
    ids = [row.id for row in training] + [example.id for found in examples.values() for example in found]
    record = DataRecord(
        inputs=opened.inputs,
        revision=opened.commit,
        sha256=_hash_inputs(opened.inputs),
        rows_sha256=hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        rows={split: tally.rows for split, tally in tallies.items()},
        left_out={split: tally.left_out for split, tally in tallies.items()},
        documents_cut={split: tally.cut for split, tally in tallies.items()},
        tokens={split: tally.tokens for split, tally in tallies.items()},
        trained_tokens=sum(row.labels for row in training),
        first_row=show(renderer, training[0]) if train else [],
        overlap=sifted.overlap,
        dropped=len(given) - len(sifted.rows),
        duplicates=sifted.duplicates,
    )
    shown: tuple[Example, ...] = ()
    if recipe.eval.few_shot and train:
        shown = choose(task, renderer, sifted.rows, recipe.eval.few_shot, recipe.seed)
    return Prepared(tuple(training), examples, shown, record)


def source(recipe: Recipe) -> Source:
    """Where the recipe's rows are; for `embedded`, the files that inlay brings."""
    data = recipe.task.data
    rows = {split: n for split in ("train", "validation", "test") if (n := getattr(data.max_rows, split))}
    if data.embedded:
        folder = Path(str(resources.files("inlay.recipes") / "embedded" / "data"))
        files = {split: folder / f"{recipe.task.type}-{split}.jsonl" for split in ("train", "validation", "test")}
        if not files["train"].is_file():
            raise RequestError(
                Problem(
                    f"there are no embedded rows for the task `{recipe.task.type}`",
                    path="task.data",
                    help="name files: `data: {train: FILE, test: FILE}`",
                )
            )
        return Source(files=files, shown={split: path.name for split, path in files.items()}, max_rows=rows)
    draw = {split: share for split in ("validation", "test") if data.draw and (share := getattr(data.draw, split))}
    named = {split: name for split in ("train", "validation", "test") if (name := getattr(data, split))}
    if data.hub:
        return Source(hub=data.hub, names=named, config=data.config, revision=data.revision, draw=draw, max_rows=rows)
    shown = {split: recipe.written(f"task.data.{split}") or name for split, name in named.items()}
    files = {split: Path(name) for split, name in named.items()}
    return Source(files=files, shown=shown, draw=draw, max_rows=rows)


def _fit_training(
    recipe: Recipe, task: Task, renderer: Renderer, limit: int, rows: Sequence[Row], tally: _Tally
) -> list[TrainingRow]:
    def make(values: Values, name: str) -> tuple[list[TrainingRow], int]:
        rendered = [r for example in task.examples(values, name, training=True) for r in renderer.rows(example)]
        length = max(max(len(r.ids), len(r.source)) for r in rendered)
        return [TrainingRow(name, r.ids, r.trained, r.source) for r in rendered], length

    made = _fit_all(recipe, task, rows, make, limit, tally)
    tally.tokens = sum(len(row.ids) + len(row.source) for row in made)
    return made


def _fit_examples(
    recipe: Recipe, task: Task, renderer: Renderer, limits: Limits, rows: Sequence[Row], tally: _Tally
) -> tuple[Example, ...]:
    def make(values: Values, name: str) -> tuple[list[Example], int]:
        examples = task.examples(values, name, training=False)
        return examples, max(example_length(renderer, example, limits.new_tokens) for example in examples)

    made = _fit_all(recipe, task, rows, make, limits.context, tally)
    tally.tokens = sum(example_length(renderer, example, limits.new_tokens) for example in made)
    return tuple(made)


def example_length(renderer: Renderer, example: Example, new_tokens: int) -> int:
    """Tokens of the prompt and of the longest thing that stands behind it in the benchmark.

    An encoder's prompt and a decoder's answer do not share a context: there, the longer of the two.

    Args:
        new_tokens: room that generation needs behind a prompt.
    """
    if isinstance(example, Text):
        return sum(len(scored) for _, scored in renderer.windows(example.text))
    prompt = len(renderer.prompt_ids(example.turns))
    if isinstance(example, Choice):
        behind = max(len(renderer.answer_ids(example.turns, label)) for label in example.labels)
    else:
        behind = max(len(renderer.answer_ids(example.turns, example.answer)), new_tokens)
    return max(prompt, behind) if renderer.kind == "seq2seq" else prompt + behind


def _fit_all(
    recipe: Recipe,
    task: Task,
    rows: Sequence[Row],
    make: Make[Made],
    limit: int | None,
    tally: _Tally,
) -> list[Made]:
    """What `make` makes of each row that fits, cut as little as needed where the recipe allows it.

    Args:
        make: renders one row.
        limit: longest that fits, in tokens; None where everything does.

    Raises:
        RequestError: rows that cannot be rendered, each with its file and line: the first few, then a count.
    """
    kept: list[Made] = []
    problems: list[Problem] = []
    for row in rows:
        name = tally.name(row)
        try:
            made, length = make(row.values, name)
            tally.longest = max(tally.longest, length)
            if limit is not None and length > limit:
                shorten = functools.partial(make, name=name)
                cut = cut_to_fit(task, row.values, shorten, limit) if recipe.task.truncate else None
                if cut is None:
                    tally.left_out += 1
                    continue
                made = cut
                tally.cut += 1
        except RequestError as failure:
            problems += [dataclasses.replace(p, file=row.file, line=row.line) for p in failure.problems]
            continue
        tally.rows += 1
        kept += made
    if len(problems) > PROBLEMS_SHOWN:
        more = Problem(f"{len(problems) - PROBLEMS_SHOWN} more rows like these", file=problems[0].file)
        problems = [*problems[:PROBLEMS_SHOWN], more]
    if problems:
        raise RequestError(problems)
    return kept


def cut_to_fit(
    task: Task, values: Values, make: Callable[[Values], tuple[list[Made], int]], limit: int
) -> list[Made] | None:
    """What is made of the longest cut of the row that fits, found by halving the share that is kept; None if none does.

    Args:
        make: of a row's values, and their length in tokens.
    """
    low, high, best = 0.0, 1.0, None
    for _ in range(HALVINGS):
        share = (low + high) / 2
        made, length = make(task.cut(values, share))
        if length <= limit:
            low, best = share, made
        else:
            high = share
    return best


def _refuse_many_left_out(recipe: Recipe, limits: Limits, tallies: Mapping[str, _Tally]) -> None:
    problems = []
    for split, tally in tallies.items():
        total = tally.rows + tally.left_out
        if tally.rows and tally.left_out <= recipe.task.max_left_out * total:
            continue
        training = split == "train"
        shorter = "raise train.max_length" if training else "lower eval.decoding.max_new_tokens"
        problems.append(
            Problem(
                f"{tally.left_out} of {total} {split} rows are longer than "
                f"{limits.training if training else limits.context} tokens (the longest has {tally.longest}); "
                f"at most {recipe.task.max_left_out:.0%} may be left out",
                path="train.max_length" if training else "task.max_left_out",
                help=f"set task.truncate: true to cut their documents, {shorter}, or accept it with "
                "task.max_left_out: 1"
                if tally.rows
                else "no row fits; set task.truncate: true, or use a base with a longer context",
            )
        )
    if problems:
        raise RequestError(problems)


def _hash_inputs(inputs: Sequence[InputFile]) -> str:
    return hashlib.sha256("\n".join(file.sha256 for file in inputs).encode()).hexdigest()


def show(renderer: Renderer, row: TrainingRow) -> list[tuple[str, bool]]:
    """The row as text, in runs of tokens that are trained on or only read."""
    runs: list[tuple[list[int], bool]] = [(list(row.source), False)] if row.source else []
    for token, on in zip(row.ids, row.trained, strict=True):
        if not runs or runs[-1][1] != on:
            runs.append(([], on))
        runs[-1][0].append(token)
    return [(renderer.tokenizer.decode(ids, clean_up_tokenization_spaces=False), on) for ids, on in runs]
