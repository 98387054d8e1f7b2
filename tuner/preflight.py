"""What can be seen of a run before a weight is loaded: findings, each with a code, an outcome and the nearest fix.

Whatever makes a run impossible has been refused by then (`inlay.tuner.setting.survey`); these findings are about runs
that are possible and may not be what was meant. A check's docstring is what `inlay check --explain CODE` prints.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from inlay.eval import Choice, Example, Reply, Text
from inlay.eval.statistics import FEWEST
from inlay.tuner.meter import free_memory
from inlay.tuner.records import ForecastRecord
from inlay.tuner.report.figures import size
from inlay.tuner.setting import Setting

ROUNDTRIPS = 50  # rows whose prompt is compared between training and benchmark
FEW_ROWS = 50  # below so many test rows, hardly any change can be told from chance
MANY_EPOCHS = 30
FAR_FROM_USUAL = 30  # times the method's own learning rate, or one part of so many
RARE = 2  # training rows of a label
# Assumed spread of a score's change from row to row, of which the smallest visible difference is computed.
TEXT_SPREAD, CHOICE_SPREAD = 20.0, 45.0
VISIBLE = 1.96 + 0.84  # for 95 % confidence, found in 80 % of repetitions


class Finding(NamedTuple):
    """One line of the preflight."""

    outcome: Literal["pass", "warn", "FAIL"]
    code: str
    text: str
    help: str = ""


def findings(setting: Setting) -> Iterator[Finding]:
    """All findings, in the order of their codes."""
    for code, check in CHECKS.items():
        for outcome, text, help in check(setting):
            yield Finding(outcome, code, text, help)


def _measured(setting: Setting) -> tuple[Example, ...]:
    return setting.data.examples[setting.recipe.eval.split]


Found = Iterator[tuple[Literal["pass", "warn", "FAIL"], str, str]]


def _trained_tokens(setting: Setting) -> Found:
    """How many tokens of the training rows are labels.

    Only labels are learned; the rest is read. A small share is usual where prompts are long. With `train.loss_on: all`
    the prompt's tokens are labels too.
    """
    record = setting.data.record
    read = record.tokens["train"]
    yield "pass", f"{record.trained_tokens:,} of {read:,} training tokens are learned from", ""


def _ends(setting: Setting) -> Found:
    """Whether the model learns to stop: the last label of a row is a token at which generation ends.

    A model that never sees the end of an answer as a label writes on until the limit. A text that is longer than a row
    has its end in its last part alone.
    """
    rows = setting.data.training
    stops = set(setting.renderer.stop_ids)
    ended = sum(any(on and token in stops for token, on in zip(row.ids, row.trained, strict=True)) for row in rows)
    if ended == len(rows) or isinstance(_measured(setting)[0], Text):
        yield "pass", f"the end is learned in {ended:,} of {len(rows):,} rows", ""
    else:
        missing = len(rows) - ended
        yield "FAIL", f"{missing:,} of {len(rows):,} rows never show their end", "the model would not learn to stop"


def _same_prompt(setting: Setting) -> Found:
    """Whether training and benchmark show the model the same prompt, token for token.

    An adapter that was trained behind one prompt and is asked with another never fires. Compared are the first fifty
    rows of the split that is measured, rendered once as training rows and once as prompts.
    """
    examples = [e for e in _measured(setting) if isinstance(e, (Reply, Choice))]
    examples = examples[:ROUNDTRIPS]
    if not examples:
        return
    different = 0
    for example in examples:
        row, prompt = setting.renderer.rows(example)[-1], setting.renderer.prompt_ids(example.turns)
        different += (row.source or row.ids[: row.answer_start]) != prompt
    if different:
        yield "FAIL", f"{different} of {len(examples)} prompts differ between training and benchmark", (
            "the chat template renders the same turns in two ways; use another base, or one without a template"
        )
    else:
        yield "pass", f"prompt in training = prompt in the benchmark, token for token ({len(examples)} rows)", ""


def _starts(setting: Setting) -> Found:
    """Whether a row begins with its start token once.

    A chat template that prints the start token, tokenized by a tokenizer that adds one, makes two; the model has never
    seen that.
    """
    start = setting.tokenizer.bos_token_id
    if start is None:
        return
    doubled = sum(row.ids[:2] == (start, start) for row in setting.data.training)
    if doubled:
        yield "FAIL", f"{doubled:,} rows begin with the start token twice", "report this: inlay should have put one"
    else:
        yield "pass", "no row begins with the start token twice", ""


def _lengths(setting: Setting) -> Found:
    """Rows that do not fit.

    An answer is never cut: a row whose answer would not fit is left out and counted, and above `task.max_left_out` the
    run is refused. With `task.truncate` documents are cut instead.
    """
    record = setting.data.record
    for split, number in record.left_out.items():
        if number:
            total = number + record.rows[split]
            yield "warn", f"{number:,} of {total:,} {split} rows are too long and left out ({number / total:.1%})", (
                "set task.truncate: true to cut their documents, or train.max_length higher where the base allows it"
            )
    cut = {split: number for split, number in record.documents_cut.items() if number}
    for split, number in cut.items():
        yield "warn", f"the documents of {number:,} of {record.rows[split]:,} {split} rows are cut", (
            "what was cut off cannot be in a good answer; a base with a longer context would read it"
        )
    if not any(record.left_out.values()) and not cut:
        yield "pass", "every row fits, none is cut", ""


def _duplicates(setting: Setting) -> Found:
    """Training rows that repeat another, prompt and answer, in any case and spacing.

    They count double in training. A few are usual in real data.
    """
    number, total = setting.data.record.duplicates, len(setting.data.training)
    if number > 0.01 * total:
        yield "warn", f"{number:,} of {total:,} training rows repeat another", "remove them, or mean it"
    else:
        yield "pass", f"{number:,} of {total:,} training rows repeat another", ""


def _overlap(setting: Setting) -> Found:
    """Training rows that stand in the rows to measure on, in any case, spacing and Unicode form.

    What was learned by heart is no sign of skill. By default such training rows are left out (`task.overlap`).
    """
    record = setting.data.record
    for split, found in record.overlap.items():
        shared = found.prompt_and_answer + found.prompt_only
        if not shared:
            yield "pass", f"no training row stands in {split}", ""
            continue
        said = f"{shared:,} training rows stand in {split} too, {found.prompt_and_answer:,} with the same answer"
        if record.dropped:
            yield "warn", f"{said}: left out", "task.overlap: keep trains on them all the same"
        else:
            yield "FAIL", f"{said}, and are trained on", "set task.overlap: drop_train"


def _test_rows(setting: Setting) -> Found:
    """How small a change the rows to measure on can show.

    An interval over n rows shrinks as one over the root of n. The smallest change that is found four times out of five
    is computed for an assumed spread of the change from row to row: 20 points for a text score, and one row in five
    that changes sides for a choice.
    """
    examples = _measured(setting)
    n, split = len(examples), setting.recipe.eval.split
    if n < FEWEST:
        yield "FAIL", f"{n} {split} rows: no change can be told from chance", f"name at least {FEWEST}, better hundreds"
        return
    kinds = {Choice: ("accuracy", CHOICE_SPREAD, "pp"), Reply: ("ROUGE-L", TEXT_SPREAD, "points")}
    outcome: Literal["pass", "warn"] = "warn" if n < FEW_ROWS else "pass"
    help = "name more rows" if n < FEW_ROWS else ""
    if type(examples[0]) not in kinds:
        yield outcome, f"{n:,} {split} rows", help
        return
    score, spread, unit = kinds[type(examples[0])]
    smallest = VISIBLE * spread / math.sqrt(n)
    text = f"{n:,} {split} rows: a change in {score} under ~{smallest:.1f} {unit}? will usually be unclear"
    yield outcome, text, help


def _labels(setting: Setting) -> Found:
    """Whether the labels of a classification can be learned and told apart.

    A label without training rows can only be guessed; the labels' likelihoods are sums over their tokens, so labels of
    unequal length start unequal.
    """
    examples = _measured(setting)
    if not isinstance(examples[0], Choice) or setting.recipe.train.loss_on == "all":
        return
    learned = Counter(
        tuple(token for token, on in zip(row.ids, row.trained, strict=True) if on) for row in setting.data.training
    )
    counts = {label: learned[setting.renderer.answer_ids(examples[0].turns, label)] for label in examples[0].labels}
    rare = [label for label, number in counts.items() if number < RARE]
    if rare:
        shown = ", ".join(f"`{label}`" for label in rare[:5])
        yield "warn", f"{len(rare)} of {len(counts)} labels have fewer than {RARE} training rows: {shown}", (
            "name more training rows, or leave the label out of task.labels"
        )
    lengths = {len(setting.renderer.answer_ids(examples[0].turns, label)) for label in counts}
    if len(lengths) > 1:
        yield "pass", f"labels are {min(lengths)} to {max(lengths)} tokens long; the page tells what that does", ""
    else:
        yield "pass", f"{len(counts)} labels, all {lengths.pop()} tokens long", ""


def _reply_length(setting: Setting) -> Found:
    """Whether `eval.decoding.max_new_tokens` leaves room for the expected answers.

    A reply that is cut off at the limit is scored as it stands, and counted as unfinished.
    """
    examples = [e for e in _measured(setting) if isinstance(e, Reply)]
    if not examples:
        return
    limit = setting.decoding.max_new_tokens
    lengths = [len(setting.renderer.answer_ids(e.turns, e.answer)) for e in examples]
    longer = sum(length > limit for length in lengths)
    if longer > 0.02 * len(lengths):
        yield "warn", f"{longer:,} of {len(lengths):,} expected answers are longer than {limit} tokens", (
            f"set eval.decoding.max_new_tokens: {max(lengths)}, the longest of them"
        )
    else:
        yield "pass", f"{len(lengths) - longer:,} of {len(lengths):,} expected answers fit in {limit} new tokens", ""


def _learning_rate(setting: Setting) -> Found:
    """Whether the learning rate is near the method's usual one.

    What suits one method is far off for another: full fine-tuning takes a tenth of LoRA's, a prompt a hundred times
    it. A rate thirty times off either way is usually a slip.
    """
    rate, usual = setting.learning_rate, setting.method.learning_rate
    if setting.trainable == 0:
        return
    if not 1 / FAR_FROM_USUAL <= rate / usual <= FAR_FROM_USUAL:
        yield "warn", f"learning rate {rate:g}; usual for {setting.method.title} is about {usual:g}", (
            "remove train.learning_rate to take the usual one"
        )
    else:
        yield "pass", f"learning rate {rate:g} (usual for {setting.method.title}: {usual:g})", ""


def _steps(setting: Setting) -> Found:
    """How often each row is seen.

    Rows that are seen dozens of times are learned by heart; rows that are never seen are wasted.
    """
    options, rows = setting.recipe.train, len(setting.data.training)
    epochs = setting.steps * options.micro_batch_size * options.gradient_accumulation_steps / max(1, rows)
    text = f"{setting.steps:,} steps, each row seen {epochs:.2g} times"
    if epochs > MANY_EPOCHS:
        yield "warn", text, "lower train.max_steps or train.epochs, or name more rows"
    else:
        yield "pass", text, ""


def room(setting: Setting, predicted: ForecastRecord | None) -> Finding:
    """Whether the predicted peak of memory fits into what is free.

    The peak is weights, adapter with optimizer, activations and logits of the largest batch, and the process itself.
    """
    if predicted is None:
        trains = setting.trainable > 0
        why = "this architecture cannot be followed without its weights" if trains else "nothing trains"
        return Finding("pass", "M301", f"memory: not forecast, {why}")
    free = _free_memory()
    low, high = predicted.peak_bytes
    if predicted.benchmark_bytes > (free or predicted.benchmark_bytes):
        asked = f"~{size(predicted.benchmark_bytes)} for the logits of {setting.recipe.eval.batch_size} rows at once"
        help = f"set eval.batch_size: {max(1, setting.recipe.eval.batch_size // 2)}"
        return Finding("FAIL", "M301", f"memory: the benchmark needs {asked}, and {size(free or 0)} are free", help)
    asked = f"~{size(low)} to {size(high)} at the peak"
    help = _less_memory(setting)
    if free is None:
        return Finding("warn", "M301", f"memory: {asked}; this system does not say what is free", "")
    if low > free:
        return Finding("FAIL", "M301", f"memory: {asked}, and {size(free)} are free", help)
    if high > free:
        return Finding("warn", "M301", f"memory: {asked}, and {size(free)} are free", help)
    return Finding("pass", "M301", f"memory: {asked} fits into {size(free)}", "")


def _less_memory(setting: Setting) -> str:
    options = setting.recipe.train
    if options.micro_batch_size > 1 and options.micro_batch_size % 2 == 0:
        half, twice = options.micro_batch_size // 2, options.gradient_accumulation_steps * 2
        return f"the same training with less: train.micro_batch_size: {half}, gradient_accumulation_steps: {twice}"
    if not options.gradient_checkpointing and setting.method.checkpointing:
        return "set train.gradient_checkpointing: true"
    return "set train.max_length lower, or use a smaller base"


def _free_memory() -> int | None:
    import torch

    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else free_memory()


CHECKS: dict[str, Callable[[Setting], Found]] = {
    "D101": _trained_tokens,
    "D102": _ends,
    "D103": _same_prompt,
    "D104": _starts,
    "D105": _lengths,
    "D106": _duplicates,
    "D107": _overlap,
    "D108": _test_rows,
    "D109": _labels,
    "D110": _reply_length,
    "T201": _learning_rate,
    "T202": _steps,
}
