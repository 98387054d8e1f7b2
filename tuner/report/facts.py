"""The plain facts of a run, as rows of a label and a value: cost, base, data, benchmark, versions."""

from __future__ import annotations

from inlay.tuner.records import (
    DataRecord,
    Environment,
    EvalRecord,
    ForecastRecord,
    NoiseRecord,
    RunRecord,
    TrainRecord,
)
from inlay.tuner.report.figures import MISSING, count, counted, duration, percent, plain, size
from inlay.tuner.report.scores import trained

Facts = list[tuple[str, str]]


def cost(record: RunRecord) -> Facts:
    """What the adapter is and what its training took."""
    facts: Facts = []
    if record.adapter and trained(record):
        adapter = record.adapter
        share = f"{percent(adapter.share)} of all weights"
        facts.append(("trainable parameters", f"{count(adapter.trainable_parameters)}, {share}"))
        facts.append(("adapter on disk", size(adapter.bytes) if adapter.bytes else f"{MISSING} (not saved)"))
    if record.base:
        beside = f", and {size(kept)} dequantized, for speed" if (kept := record.base.plain_bytes) else ""
        facts.append(("base in memory", size(record.base.bytes) + beside))
    if record.train:
        facts += _training(record.train, record.forecast)
    elif trained(record):
        facts.append(("training", f"{MISSING} (did not begin)"))
    if record.eval:
        facts.append(("benchmark time", duration(record.eval.seconds)))
        facts.append(("peak memory, benchmark", size(record.eval.peak_bytes)))
    facts.append(("whole run", duration(record.seconds)))
    return facts


def _training(train: TrainRecord, forecast: ForecastRecord | None) -> Facts:
    facts = [
        ("training time, steps only", duration(train.seconds)),
        ("speed", f"{count(round(train.tokens_per_second))} tokens/s"),
        ("peak memory, training", size(train.peak_bytes)),
        *([("predicted before the start", memory_forecast(forecast))] if forecast else []),
        ("steps", f"{count(train.steps)}{', stopped early' if train.stopped_early else ''}"),
        ("rows seen", count(train.rows_seen)),
        ("tokens", f"{count(train.tokens)} read, {count(train.trained_tokens)} trained on"),
        ("learning rate", plain(train.learning_rate)),
    ]
    if train.first_loss is not None and train.last_loss is not None:
        facts.append(("loss", f"{plain(train.first_loss)} to {plain(train.last_loss)} nats per trained token"))
    if train.best_step is not None:
        facts.append(("kept weights", f"of step {count(train.best_step)}, the best on validation"))
    return facts


def base(record: RunRecord) -> Facts:
    """Which model was adapted, and how."""
    facts: Facts = []
    if record.base:
        model = record.base
        facts += [
            ("base model", model.model),
            ("revision", model.revision or f"{MISSING} (a local model)"),
            ("content sha256", model.sha256),
            ("architecture", f"{model.model_type}, {counted(model.parameters, 'parameter')}"),
            ("weights", f"{model.quantization}, computed in {model.compute_dtype}"),
            ("prompt format", model.prompt_format),
        ]
    if record.adapter:
        facts.append(("adapter", record.adapter.name))
        facts += [(f"adapter.{name}", _option(value)) for name, value in record.adapter.options.items()]
    return facts


def _option(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def benchmark(record: RunRecord) -> Facts:
    """How the scores were made."""
    if record.eval is None:
        return []
    done = record.eval
    facts = [
        ("rows", f"{counted(done.rows, 'row')} of {done.split}"),
        ("tokens scored", count(done.tokens_scored)),
        ("decoding", done.decoding),
        ("batch size", count(done.batch_size)),
        ("language", done.language),
    ]
    if record.data and (found := overlap(record.data)):
        facts.append(("overlap", found))
    return [*facts, ("noise of batching", noise(done.noise))] if done.noise else facts


def noise(found: NoiseRecord) -> str:
    """How much batching alone moved the results, in one line."""
    same = f"{count(found.identical_texts)} of {counted(found.rows, 'text')} identical"
    return f"{same}, likelihood moves by {percent(found.nll_relative)} ({found.dtype})"


def overlap(data: DataRecord) -> str:
    """Whether training rows stand in the rows that were measured, in one line; empty where nobody looked."""
    if not data.overlap:
        return ""
    said = []
    for split, found in data.overlap.items():
        shared = found.prompt_and_answer + found.prompt_only
        if not shared:
            said.append(f"no training row stands in {split}")
            continue
        fate = "left out" if data.dropped else "trained on all the same"
        said.append(
            f"{counted(shared, 'training row')} in {split} too, {count(found.prompt_and_answer)} with the same answer: "
            f"{fate}"
        )
    if data.duplicates:
        said.append(f"{counted(data.duplicates, 'training row')} repeat another")
    return "; ".join(said)


def memory_forecast(found: ForecastRecord) -> str:
    """The predicted peak in training, a range."""
    low, high = found.peak_bytes
    return f"{size(low)} to {size(high)}"


def length_effect(done: EvalRecord) -> str:
    """Whether the labels of a classification differ in length, which their likelihoods feel; empty without labels."""
    if not done.label_tokens:
        return ""
    shortest, longest = min(done.label_tokens), max(done.label_tokens)
    if shortest == longest:
        return f"Every label is {counted(longest, 'token')} long, so none is favoured for being short."
    return (
        f"Labels are {shortest} to {counted(longest, 'token')} long, and a label's likelihood is a product over its "
        "tokens: where a long label is rarely chosen, its length may be the reason."
        + (f" Taken per token, accuracy would be {done.per_token_accuracy:.1f} %." if done.per_token_accuracy else "")
    )


def versions(record: RunRecord) -> Facts:
    """What a repeat needs: seed, hashes, where it ran, and with which libraries."""
    facts = [
        ("run", record.id),
        ("made", record.created),
        ("command", record.command),
        ("seed", str(record.seed)),
        ("recipe hash", record.recipe_hash),
    ]
    return facts + origins(record.data, record.environment)


def origins(data: DataRecord | None, place: Environment | None) -> Facts:
    """What was read, by its hashes, and where and with which libraries."""
    facts = []
    if data:
        facts += [("data sha256", data.sha256), ("used rows sha256", data.rows_sha256)]
        facts += [(file.name, f"{size(file.bytes)}, sha256 {file.sha256}") for file in data.inputs]
    if place:
        facts += [
            ("device", place.device),
            ("platform", f"{place.platform}, {counted(place.threads, 'thread')}"),
            ("commit", place.git or f"{MISSING} (not in a git repository)"),
            ("Python", place.python),
            *place.versions.items(),
        ]
    return facts
