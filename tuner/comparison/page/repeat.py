"""What a repeat of the comparison needs: command, hashes, versions, device."""

from __future__ import annotations

from inlay.tuner.comparison.records import ComparisonRecord
from inlay.tuner.report.facts import Facts, origins
from inlay.tuner.report.figures import MISSING, count, counted


def repeat(record: ComparisonRecord) -> Facts:
    """As rows of a label and a value."""
    facts: Facts = [
        ("command", record.command),
        ("comparison", record.id),
        ("identity sha256", record.identity),
        ("made", record.created),
        ("seeds", ", ".join(str(seed) for seed in record.seeds)),
        ("scored on", f"{counted(record.examples, 'row')} of {record.split}"),
        ("decoding", record.decoding),
    ]
    if record.tuning:
        facts.append(("learning rates", record.tuning))
    if record.base:
        base = record.base
        facts += [
            ("base model", base.model),
            ("base revision", base.revision or f"{MISSING} (a local model)"),
            ("base sha256", base.sha256),
            ("base weights", f"{base.quantization}, computed in {base.compute_dtype}"),
        ]
    return facts + origins(record.data, record.environment)


def budget(record: ComparisonRecord) -> list[tuple[str, str, str, str, str]]:
    """What each row was given: label, steps, rows seen, tokens seen, learning rate."""
    return [
        (
            row.label,
            count(row.steps),
            count(row.rows_seen),
            count(row.tokens_seen),
            MISSING if row.learning_rate is None else f"{row.learning_rate:g}",
        )
        for row in record.rows
        if row.steps
    ]
