"""The model card of an export: what it is, what was measured, how it was made, and the proof."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from inlay.adapters.lora import APART
from inlay.tuner.export.chat_template import around
from inlay.tuner.export.proof import moved
from inlay.tuner.export.records import (
    CombinationRecord,
    ConversionRecord,
    Distance,
    ExportRecord,
    GgufRecord,
    Proof,
)
from inlay.tuner.export.source import Source
from inlay.tuner.model_files import HUB_ID
from inlay.tuner.records import ChangeRecord, ScoreRecord
from inlay.tuner.report.figures import count, percent, size
from inlay.tuner.run_directory import write_whole
from inlay.tuner.setting import Setting

USE_LOADER = "## Use\n\n```\npython load.py 'a message'\n```"
TASKS = {"classification": "text-classification", "summarization": "summarization"}


def write_card(folder: Path, made: ExportRecord, source: Source) -> None:
    """Writes `README.md`, with the metadata that the hub reads."""
    parts = [
        _metadata(made, source.setting),
        f"# {made.name}",
        _summary(made, source),
        _scores(made),
        *_combined(made),
        USE_LOADER if not made.merged_into else _use_gguf(made.gguf) if made.gguf else _use(source),
        _proof(made),
        _origin(made, source),
    ]
    write_whole(folder / "README.md", "\n\n".join(parts) + "\n")


def lines(proved: Proof, dtype: str) -> list[str]:
    """A proof in a few lines, as the terminal and the card show it."""
    found = proved.distance
    told = [
        f"{count(proved.rows)} test rows, the files opened from disk in a new process",
        f"same next token at {percent(found.same_top)} of {count(found.tokens)} tokens"
        + (f" ({count(found.near_ties)} near ties left out)" if found.near_ties else ""),
        f"KL divergence {found.kl_mean:.2g} nats per token, at most {found.kl_max:.2g}; the limit is "
        f"{proved.kl_limit:.2g}{_floor(proved.floor, dtype)}",
        f"same output in {count(proved.same_texts)} of {count(proved.rows)} rows"
        + (f", {count(proved.tied_texts)} others pass a near tie" if proved.tied_texts else ""),
    ]
    if proved.int8:
        told.append(
            f"what was benchmarked rounds activations to int8: the same next token at {percent(proved.int8.same_top)} "
            f"of the tokens, KL divergence {proved.int8.kl_mean:.2g} nats per token, at most {proved.int8.kl_max:.2g}"
        )
    cleared = [name for name in moved(proved.scores) if name not in proved.beyond_dtype] if proved.floor else []
    if cleared:
        told.append(f"{', '.join(cleared)}: moved, but not against base and adapter computed in {dtype}")
    if proved.same_prompts is not None:
        told.append(f"same prompt tokens by its own chat template in {count(proved.same_prompts)} rows")
    return told


def converted_line(made: ConversionRecord) -> str:
    """What turning the adapter into LoRA took, as the terminal and the card show it."""
    lost = f"leaves out up to {percent(made.left_out)} of a layer's update" if made.left_out else "leaves nothing out"
    return f"rank {made.rank}, which {lost}; {size(made.bytes)}, the original has {size(made.own_bytes)}"


def combined_lines(made: CombinationRecord) -> list[str]:
    """How the adapters were combined, and whose rows they were measured on, as the terminal and the card show it."""
    density = [f"density {made.density:g}"] if made.density is not None else []
    seed = [f"seed {made.seed}"] if made.seed is not None else []
    told = [", ".join([made.kind, *density, *seed, f"rank {made.rank}"])]
    if made.kind in APART:
        told.append("A and B of the adapters are combined apart, so this is no weighted sum of their updates; cat is")
    told.append(" + ".join(f"{part.weight:g} x {part.name}" for part in made.parts))
    others = [part.name for part in made.parts if not part.scores]
    told.append(f"measured on {made.rows}")
    if others:
        told.append(f"alone not measured on these rows: {', '.join(others)}")
    return told


def _floor(floor: Distance | None, dtype: str) -> str:
    return f", {dtype} alone does {floor.kl_mean:.2g}" if floor else ""


def _metadata(made: ExportRecord, setting: Setting) -> str:
    base, data = made.base.model, setting.recipe.task.data
    tags = ["lora"] * bool(made.converted) + ["merged" if made.merged_into else "adapter"]
    tags += ["4-bit", "bitsandbytes"] * bool(made.quantization)
    fields: list[tuple[str, object]] = [
        ("library_name", "gguf" if made.gguf else "transformers" if made.merged_into else "peft"),
        ("pipeline_tag", TASKS.get(setting.recipe.task.type, "text-generation")),
        ("license", "other"),
        ("license_name", "of-base-and-data"),
        ("tags", ["inlay", made.method, *tags]),
    ]
    if HUB_ID.fullmatch(base) and "/" in base:
        fields.append(("base_model", base))
    if data.hub:
        fields.append(("datasets", [data.hub]))
    # JSON is YAML too, and quotes whatever a name holds.
    return "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in fields) + "\n---"


def _summary(made: ExportRecord, source: Source) -> str:
    setting = source.setting
    task = f" for {setting.recipe.task.type.replace('_', ' ')}" if source.formatted and not made.combination else ""
    what = setting.method.title
    if made.combination:
        what = f"{len(made.combination.parts)} adapters of {what}, combined ({made.combination.kind}),"
    trained = f"{what} trained on `{made.base.model}` ({made.base.quantization}){task}"
    if made.converted:
        trained += f", turned into LoRA of rank {made.converted.rank}"
    licences = "The licences of the base and of the data apply."
    if not made.merged_into:
        return f"{trained}. It stays beside its base: `load.py` opens both.\n\n{licences}"
    start = "the base's weights as it was trained on them"
    if made.merged_into == "original":
        start = "the base's original weights, which are **not** those it was trained on"
    written = f"quantized again ({made.quantization})" if made.quantization else f"written as {made.dtype}"
    if made.gguf:
        written = f"written as a GGUF file ({made.gguf.kind})"
    plain = "A plain model: it needs neither an adapter nor inlay."
    return f"{trained}, and merged in fp32 into {start}; {written}. {plain}\n\n{licences}"


def _scores(made: ExportRecord) -> str:
    rows = ["| Score | Base and adapter, fp32 | This export | Change |", "|---|---:|---:|---:|"]
    for name, pair in (made.quantized or made.proof).scores.items():
        rows.append(f"| {name} | {_score(pair.reference)} | {_score(pair.export)} | {_change(pair.change)} |")
    return "\n".join(["## Scores", "", *rows, "", "In brackets 95 % intervals; of a change, paired over the rows."])


def _combined(made: ExportRecord) -> list[str]:
    """The part of the card on what was combined, and what each part scores alone."""
    if made.combination is None:
        return []
    text, parts = _bullets(combined_lines(made.combination)), made.combination.parts
    if any(part.scores for part in parts):
        head = "| Score | Combined | " + " | ".join(f"{part.name} alone" for part in parts)
        rows = [f"{head} |", f"|---|{'---:|' * (1 + len(parts))}"]
        for name, pair in made.proof.scores.items():
            alone = (_score(part.scores[name]) if name in part.scores else "" for part in parts)
            rows.append(f"| {name} | {_score(pair.reference)} | {' | '.join(alone)} |")
        text = "\n".join([text, "", *rows])
    return [f"## Combined\n\n{text}"]


def _score(score: ScoreRecord) -> str:
    ends = f" [{score.ci95[0]:.4g}, {score.ci95[1]:.4g}]" if score.ci95 else ""
    return f"{score.value:.4g}{ends}"


def _change(change: ChangeRecord) -> str:
    ends = f" [{change.ci95[0]:+.2g}, {change.ci95[1]:+.2g}]" if change.ci95 else ""
    return f"{change.value:+.2g} {change.unit}{ends}" if change.value else "0"


def _use(source: Source) -> str:
    setting = source.setting
    kind = "AutoModelForSeq2SeqLM" if setting.facts.kind == "seq2seq" else "AutoModelForCausalLM"
    templated = setting.facts.kind == "causal" and (
        bool(setting.tokenizer.chat_template) or (source.formatted and setting.task.answers != "read")
    )
    ask = 'inputs = tokenizer("...", return_tensors="pt")'
    if templated:
        ask = (
            'messages = [{"role": "user", "content": "..."}]\n'
            "inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, "
            'return_tensors="pt")'
        )
    return (
        "## Use\n\n```python\n"
        f"from transformers import {kind}, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        f'model = {kind}.from_pretrained("FOLDER")\n'
        f"{ask}\n"
        f"print(tokenizer.decode(model.generate(**inputs)[0]))\n```\n\n{_format(source, templated)}"
    )


def _format(source: Source, templated: bool) -> str:
    """What to put in the place of the dots."""
    if not source.formatted:
        return "It is not known here in which format it was trained to be asked; ask as its author does."
    setting = source.setting
    prompt = setting.task.prompt
    told = []
    if prompt and templated and setting.renderer.prompt_format == "plain" and around(prompt):
        told.append(f"A message is the text alone; the template puts `{json.dumps(prompt)}` around it.")
    elif prompt:
        told.append(f"The text is the whole prompt, `{json.dumps(prompt)}` with its fields filled in.")
    told.append("The decoding of the benchmark is the default: it is in `generation_config.json`.")
    if templated:
        told.append("The format of the prompts that it was trained with is the tokenizer's chat template.")
    return " ".join(told)


def _use_gguf(made: GgufRecord) -> str:
    told = (
        f"* the file, read back by transformers, differs from the merged model by at most {made.logit_gap:.2g} in its "
        f"logits; the same next token at {percent(made.same_top)} of {count(made.tokens)} tokens, and "
        f"{made.same_replies} of {made.replies} greedy replies are the same"
    )
    notes = "".join(f"\n* not held by the format: {note}" for note in made.notes)
    return f"## Use\n\n```\nollama create NAME -f Modelfile\nollama run NAME\n```\n\n{told}{notes}"


def _proof(made: ExportRecord) -> str:
    parts = ["## Proof", "Compared with base and adapter, opened from disk again and computed in fp32:"]
    parts.append(_bullets(lines(made.proof, "fp32" if made.gguf else made.dtype)))
    if made.proof.faults:
        parts.append("**This is not the model that was benchmarked**, and was asked for all the same:")
        parts.append(_bullets(made.proof.faults))
    if made.quantized:
        found = made.quantized.distance
        parts.append(
            f"That is the merged model in {made.dtype}. Quantizing it again costs: same next token at "
            f"{percent(found.same_top)} of the tokens, KL divergence {found.kl_mean:.2g} nats per token, same output "
            f"in {count(made.quantized.same_texts)} of {count(made.quantized.rows)} rows."
        )
    return "\n\n".join([*parts, "All numbers are in `export.json`."])


def _origin(made: ExportRecord, source: Source) -> str:
    versions = made.environment.versions
    names = ("inlay", "torch", "transformers", "peft", "bitsandbytes")
    told = [
        *(f"{key}: `{value}`" for key, value in source.origin),
        f"base: sha256 `{made.base.sha256}`",
        f"adapter: sha256 `{made.adapter_sha256}`",
        *([f"as LoRA: {converted_line(made.converted)}"] if made.converted else []),
        *(f"`{name}`: sha256 `{digest}`" for name, digest in made.weights.items()),
        ", ".join(f"{name} {versions[name]}" for name in names),
        f"peak memory of merging: {size(made.peak_bytes)}",
    ]
    return f"## How it was made\n\n{_bullets(told)}"


def _bullets(told: Sequence[str]) -> str:
    return "\n".join(f"* {line}" for line in told)
