"""The contract of a metric. Every other module of this folder is one metric: `rouge` is `rouge.py`, class `Rouge`.

A metric is split so that resampling is cheap: `statistics` turns one record into a fixed number of float64 values, and
`value` turns sums of those over any resample of the examples into scores, vectorised. `gather` is the one way from
records to statistics, so that its guards hold for a benchmark and for `as_evaluate` alike.
"""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from inlay.eval import MeasurementError, Record

if TYPE_CHECKING:
    import datasets
    import evaluate
    import numpy as np
    from numpy.typing import NDArray


class Metric(ABC):
    """One metric, for one language.

    Attributes:
        title: the metric's usual name.
        scores: the names of the scores it yields (ROUGE yields four).
        main: the one of them that methods are ordered by; empty: the first.
        needs: what a record must hold: generated `text`, the reference's `likelihood`, or a `choice` among labels.
        fields: the record's fields that `statistics` reads.
        unit: of every score.
        higher_is_better: None where neither direction is better.
        ratio: a change is told relative to the old value (perplexity), not as a difference.
        proportion: a mean of zeros and ones, whose interval is Wilson's.
        per_example: one example alone has a telling value.
    """

    title: ClassVar[str]
    scores: ClassVar[tuple[str, ...]]
    main: ClassVar[str] = ""
    needs: ClassVar[Literal["text", "likelihood", "choice"]]
    fields: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool | None]
    ratio: ClassVar[bool] = False
    proportion: ClassVar[bool] = False
    per_example: ClassVar[bool] = True

    def __init__(self, language: str) -> None:
        """`language` is a code such as `en` or `zh`; of `zh-CN` or `pt_BR` the first part counts."""
        self.language = language.lower().replace("_", "-").split("-")[0]

    @abstractmethod
    def signature(self, references: int | None = 1) -> str:
        """Every setting and version that can change the numbers, in one line.

        Args:
            references: how many each example has; None where that varies.
        """


class Additive(Metric):
    """A metric of sums over examples, so that resampling is cheap: it has an interval."""

    @abstractmethod
    def statistics(self, record: Record) -> NDArray[np.float64]:
        """The record's contribution, shape (k,); what is summed over examples."""

    @abstractmethod
    def value(self, sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """The scores from sums over `n` examples: shape (..., k) -> (..., len(scores))."""

    def example_values(self, statistics: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores of each example alone: shape (n, k) -> (n, len(scores))."""
        return self.value(statistics, 1)


class Whole(Metric):
    """A metric of all examples together that no sum over them gives. It has no interval: a resample repeats examples,
    which biases it."""

    per_example = False

    @abstractmethod
    def of(self, records: Sequence[Record]) -> list[float]:
        """The scores."""


class Mean(Additive):
    """A metric whose scores are means over examples of values between 0 and 1, told times 100."""

    def value(self, sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        return 100 * sums / n


def names() -> list[str]:
    """The names of all metrics, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> type[Metric]:
    """The class of the metric called `name`; imports that one module.

    Raises:
        LookupError: no such metric; the message names the closest one.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise LookupError(f"unknown metric `{name}`{hint} (known: {', '.join(names())})")
    module = importlib.import_module(f"{__name__}.{name}")
    return getattr(module, "".join(part.capitalize() for part in name.split("_")))


def gather(metric: Additive, records: Sequence[Record]) -> NDArray[np.float64]:
    """The statistics of all records, shape (n, k).

    Raises:
        MeasurementError: there are no records, or some cannot be scored; they are named, never left out.
    """
    import numpy as np

    require_scorable(metric, records)
    return np.stack([metric.statistics(record) for record in records])


def values(metric: Metric, records: Sequence[Record]) -> list[float]:
    """The scores of all records.

    Raises:
        MeasurementError: as `gather`.
    """
    if isinstance(metric, Whole):
        require_scorable(metric, records)
        return metric.of(records)
    assert isinstance(metric, Additive)
    return metric.value(gather(metric, records).sum(axis=0), len(records)).tolist()


def require_scorable(metric: Metric, records: Sequence[Record]) -> None:
    """Checks that the metric can score every record.

    Raises:
        MeasurementError: there are no records, or some cannot be scored; they are named, never left out.
    """
    if not records:
        raise MeasurementError(f"{metric.title}: there are no examples to score")
    complaints = {record.id: complaint for record in records if (complaint := _complaint(metric, record))}
    if complaints:
        listed = ", ".join(f"`{name}`" for name in list(complaints)[:5]) + (", ..." if len(complaints) > 5 else "")
        first = next(iter(complaints.values()))
        raise MeasurementError(f"{metric.title}: {first} in {len(complaints)} of {len(records)} examples ({listed})")
    if "labels" in metric.fields and len({record.labels for record in records}) > 1:
        raise MeasurementError(f"{metric.title}: the labels differ between examples; one set was expected")


def _complaint(metric: Metric, record: Record) -> str | None:
    """What makes it impossible to score the record with the metric; None where nothing does."""
    if "references" in metric.fields and not record.references:
        return "no reference"
    if metric.needs == "likelihood" and record.tokens < 1:
        return "no scored token"
    if metric.needs == "likelihood" and not math.isfinite(record.nll_nats):
        return "a likelihood that is not finite"
    if metric.needs == "choice":
        if not all(map(math.isfinite, record.label_nll_nats)):
            return "a label's likelihood that is not finite"
        if min(record.gold, record.chosen) < 0:
            return "no choice among labels"
        if "labels" in metric.fields and max(record.gold, record.chosen) >= len(record.labels):
            return "a choice outside the labels"
    return None


def as_evaluate(metric: Metric) -> evaluate.Metric:
    """`metric` as a real `evaluate.Metric`: `compute` takes its fields as columns and returns {score name: value}.

    Texts come as `predictions` (strings) and `references` (a list of strings each), choices as `predictions` and
    `references` (indices of labels), everything else under the record's own names. The module is made here and never
    loaded by name, since `evaluate.load` asks the hub or executes a file. Its cache folder goes when it goes.

    Raises:
        MeasurementError: by the module, where columns differ in length or an example cannot be scored.
    """
    import evaluate

    features = _features(metric)
    about = f"{metric.title} ({metric.unit}). Columns: {', '.join(features)}. Signature: {metric.signature()}"

    class Module(evaluate.Metric):
        def __init__(self) -> None:
            folder = tempfile.mkdtemp(prefix="inlay-metric-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            super().__init__(cache_dir=folder)

        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(description=about, citation="", features=features, inputs_description=about)

        def add_batch(self, *, predictions: Any = None, references: Any = None, **others: Any) -> None:
            """Adds examples, one entry of every column for each."""
            given = {"predictions": predictions, "references": references, **others}
            _check_columns(metric, {name: given.get(name) for name in features})
            super().add_batch(predictions=predictions, references=references, **others)

        def add(self, *, prediction: Any = None, reference: Any = None, **others: Any) -> None:
            """Adds one example."""
            alone = {"predictions": prediction, "references": reference, **others}
            self.add_batch(**{name: [alone.get(name)] for name in features})

        def _compute(self, **columns: Sequence[Any]) -> dict[str, float]:
            records = _from_columns(metric, columns)
            return dict(zip(metric.scores, values(metric, records), strict=True))

    Module.__name__ = Module.__qualname__ = type(metric).__name__
    return Module()


# Where evaluate has a word of its own for a field of a record; the other fields keep theirs.
_COLUMNS = {"prediction": "predictions", "chosen": "predictions", "gold": "references"}


def _features(metric: Metric) -> datasets.Features:
    """The columns that the metric's `evaluate.Metric` takes, with their types."""
    from datasets import Features, List, Value

    texts = List(Value("string"))
    types = {"references": texts, "labels": texts, "prediction": Value("string"), "finished": Value("bool")}
    types |= dict.fromkeys(("tokens", "reference_bytes", "gold", "chosen"), Value("int64"))
    types |= {"nll_nats": Value("float64")}
    return Features({_COLUMNS.get(field, field): types[field] for field in metric.fields})


def _from_columns(metric: Metric, columns: Mapping[str, Sequence[Any]]) -> list[Record]:
    """Records with the metric's fields from columns of equal length."""
    blank = Record(id="", references=(), prediction="", finished=True, nll_nats=0.0, tokens=1, reference_bytes=0)
    rows = zip(*(columns[_COLUMNS.get(field, field)] for field in metric.fields), strict=True)
    records = []
    for number, row in enumerate(rows, start=1):
        given: dict[str, Any] = dict(zip(metric.fields, row, strict=True))
        given |= {field: tuple(value) for field, value in given.items() if isinstance(value, list)}
        records.append(replace(blank, id=f"row {number}", **given))
    return records


def _check_columns(metric: Metric, columns: Mapping[str, Any]) -> None:
    """Refuses columns that are missing or of unequal length, and a string where a list of strings is expected."""
    missing = [name for name, column in columns.items() if column is None]
    if missing:
        raise MeasurementError(f"{metric.title}: `{missing[0]}` is missing; expected {', '.join(columns)}")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise MeasurementError(f"{metric.title}: {found}; expected one entry of each for every example")
    for name in ("references", "labels"):
        if name in metric.fields and any(isinstance(entry, str) for entry in columns[name]):
            raise MeasurementError(f"{metric.title}: `{name}` holds a string; expected a list of strings per example")
