"""What the cells left, read back from disk: records of every example, as the metrics want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inlay.eval import Record, Report
from inlay.eval.metrics import Metric
from inlay.eval.statistics import summarize
from inlay.tuner.benchmark import SEED, Untouched
from inlay.tuner.problems import RequestError
from inlay.tuner.records import EvalRecord, Prediction, RunRecord
from inlay.tuner.report.files import read_run

Who = Literal["tuned", "base", "few_shot"]


@dataclass(frozen=True)
class Evidence:
    """One finished run: its record, and what one of its models, `who`, left on every example of the benchmark."""

    run: RunRecord
    who: Who
    prompts: tuple[str, ...]
    records: tuple[Record, ...]

    @property
    def eval(self) -> EvalRecord:
        """How it was measured."""
        assert self.run.eval is not None
        return self.run.eval


def read_evidence(path: Path, who: Who) -> Evidence:
    """The evidence of a finished run about one of its models.

    Raises:
        RequestError: it is no finished run, or was made before predictions held what a metric reads.
    """
    files = read_run(path)
    run = files.record
    if run.status != "complete" or run.eval is None:
        raise RequestError(f"`{path}` is not a finished run ({run.status})", help="only finished runs can be compared")
    records = tuple(_record(line, run.eval, who, path) for line in files.predictions)
    return Evidence(run, who, tuple(line.prompt for line in files.predictions), records)


def untouched(path: Path, metrics: Sequence[Metric]) -> Untouched:
    """What was measured of the base in the run at `path`, as if it had just been measured."""
    plain = read_evidence(path, "base")
    shown = _report(read_evidence(path, "few_shot"), metrics) if plain.eval.few_shot else None
    return Untouched(_report(plain, metrics), shown)


def _report(evidence: Evidence, metrics: Sequence[Metric]) -> Report:
    scores, example_scores = summarize(metrics, evidence.records, seed=SEED)
    return Report(
        scores=scores,
        records=evidence.records,
        example_scores=example_scores,
        tokens_scored=sum(record.tokens for record in evidence.records),
        seconds=evidence.eval.seconds,
        decoding=evidence.eval.decoding,
        batch_size=evidence.eval.batch_size,
    )


def _record(line: Prediction, measured: EvalRecord, who: Who, path: Path) -> Record:
    """The line as the metrics read it, of one of the three models that it tells of."""
    text, finished, nll, labelled = {
        "tuned": (line.prediction, line.finished, line.nll_nats, line.label_nll_nats),
        "base": (line.base_prediction, line.base_finished, line.base_nll_nats, line.base_label_nll_nats),
        "few_shot": (
            line.few_shot_prediction,
            line.few_shot_finished,
            line.few_shot_nll_nats,
            line.few_shot_label_nll_nats,
        ),
    }[who]
    if text is None or finished is None or nll is None:
        raise RequestError(
            f"`{path}` does not hold what a comparison reads of each example",
            help="measure the run again with `inlay eval`, and compare what that makes",
        )
    labels = tuple(measured.labels)
    chosen = {"gold": labels.index(line.references[0]), "chosen": labels.index(text)} if labels else {}
    return Record(
        id=line.id,
        references=tuple(line.references),
        prediction=text,
        finished=finished,
        nll_nats=nll,
        tokens=line.tokens,
        reference_bytes=line.reference_bytes,
        labels=labels,
        label_nll_nats=tuple(labelled),
        label_tokens=tuple(line.label_tokens),
        **chosen,
    )
