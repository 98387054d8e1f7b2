"""What `inlay export` prints when it is done."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from inlay.tuner.export.card import combined_lines, converted_line, lines
from inlay.tuner.export.order import RECORD
from inlay.tuner.export.records import CombinationRecord, ExportRecord, ScorePair
from inlay.tuner.report.figures import count, percent, size


def told(folder: Path) -> str:
    """The proof of the export in `folder`, what it was merged into, and its files."""
    made = ExportRecord.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
    bases = {"dequantized": f"as the adapter was trained on it: {made.base.quantization}"}
    parts = [("proof", line) for line in lines(made.proof, made.dtype)]
    parts += [("score", _score(name, pair)) for name, pair in made.proof.scores.items()]
    if made.combination:
        parts += [("parts", line) for line in combined_lines(made.combination)]
        parts += [("alone", line) for line in _alone(made.combination, made.proof.scores)]
    if made.converted:
        parts.append(("LoRA", converted_line(made.converted)))
        if not made.converted.left_out and made.converted.bytes > made.converted.own_bytes:
            parts.append(("LoRA", "a lower --rank makes it smaller, and the proof tells whether it is still the same"))
    if made.quantized:
        found = made.quantized.distance
        parts.append(("4 bit", f"{made.quantization}, what it costs: KL divergence {found.kl_mean:.2g} nats per token"))
        parts.append(("4 bit", f"same next token at {percent(found.same_top)} of {count(found.tokens)} tokens"))
        parts += [("4 bit", _score(name, pair)) for name, pair in made.quantized.scores.items()]
    if made.gguf:
        told = f"{made.gguf.kind}, read back by transformers: logits differ by at most {made.gguf.logit_gap:.2g}"
        parts.append(("gguf", f"{told}, {made.gguf.same_replies} of {made.gguf.replies} replies are the same"))
        parts += [("gguf", f"not held by the format: {note}") for note in made.gguf.notes]
    parts += [("DRIFT", fault) for fault in made.proof.faults]
    bases[""] = f"{made.base.model}, {made.base.quantization}; load.py puts the adapter on it"
    parts.append(("base", bases.get(made.merged_into, "original weights, not what the adapter was trained on")))
    written = sum(path.stat().st_size for path in folder.iterdir())
    if made.merged_into:
        parts.append(("memory", f"{size(made.peak_bytes)} at most while merging"))
    parts.append(("file", f"{folder}, {size(written)}; {RECORD} and README.md tell the proof"))
    if made.gguf:
        parts.append(("next", f"ollama create NAME -f {shlex.quote(str(folder / 'Modelfile'))}"))
    else:
        parts.append(("next", f"inlay chat {shlex.quote(str(folder))}"))
    return "\n".join(
        f"{'' if i and parts[i - 1][0] == title else title:<8}{line}" for i, (title, line) in enumerate(parts)
    )


def _alone(made: CombinationRecord, scores: Mapping[str, ScorePair]) -> list[str]:
    """What the combination scores, and each part alone, of which that is known."""
    told = []
    for name, pair in scores.items():
        known = [f"{part.scores[name].value:.4g} {part.name}" for part in made.parts if name in part.scores]
        told += [f"{name} {pair.reference.value:.4g} combined, {', '.join(known)}"] * bool(known)
    return told


def _score(name: str, pair: ScorePair) -> str:
    change = pair.change
    ends = f" (95 % interval {change.ci95[0]:+.2g} to {change.ci95[1]:+.2g})" if change.ci95 else ""
    apart = f"{change.value:+.2g} {change.unit}{ends}" if change.value else "no change"
    return f"{name} {pair.reference.value:.4g} benchmarked, {pair.export.value:.4g} exported: {apart}"
