"""The GGUF part of an export: the file, Ollama's Modelfile, and what reading the file back found."""

from __future__ import annotations

import json
import math
from pathlib import Path

from inlay.eval import Text
from inlay.tuner import base as base_models
from inlay.tuner.console import Progressing
from inlay.tuner.data.prepared import example_length
from inlay.tuner.export.chat_template import trained_template
from inlay.tuner.export.fresh_process import run_fresh
from inlay.tuner.export.gguf import refusal, write_gguf
from inlay.tuner.export.gguf_check import Readback
from inlay.tuner.export.gguf_tensors import Kind
from inlay.tuner.export.modelfile import CONTINUATION, conversation, instruction, write_modelfile
from inlay.tuner.export.records import GgufRecord
from inlay.tuner.export.source import Source
from inlay.tuner.problems import AnswerNo, RequestError
from inlay.tuner.setting import Setting

KINDS: dict[str, Kind] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "q8_0": "q8_0"}
OLLAMA_CONTEXT = 4096  # by default
FILE, PROMPTS, NEW_TOKENS = "model.gguf", 16, 16


def refuse_gguf(source: Source) -> None:
    """Says before anything is merged why there can be no GGUF file.

    Raises:
        RequestError: the architecture or the tokenizer cannot be held.
    """
    setting = source.setting
    reason = refusal(base_models.read_config(setting.files), setting.tokenizer)
    if reason:
        raise RequestError(f"this model cannot be a GGUF file: {reason}", help="export it with --format merged")


def write_gguf_part(source: Source, merged: Path, folder: Path, dtype: str, show: Progressing) -> GgufRecord:
    """Writes the file and its Modelfile into `folder`, and reads the file back in a new process.

    Args:
        merged: the folder of the merged model in fp32.
        dtype: `fp32`, `fp16`, `bf16` or `q8_0`.

    Raises:
        AnswerNo: an fp32 file read back is not the merged model.
    """
    setting = source.setting
    show.say(f"gguf    {KINDS[dtype]}, read back by transformers")
    folder.mkdir()
    template = setting.tokenizer.chat_template
    if setting.task.answers != "read" and (source.formatted or not template):
        template = trained_template(setting.renderer, setting.task.prompt)
    written = write_gguf(merged, folder / FILE, KINDS[dtype], template=template)
    context = context_of(setting)
    write_modelfile(folder / "Modelfile", FILE, _asked(setting), setting.renderer, setting.decoding, context=context)
    found = _read_back(folder / FILE, merged, _prompts(setting), template)
    fault = found.fault() if dtype == "fp32" else found.damage()
    if fault:
        raise AnswerNo(f"the GGUF file, read back, is not the merged model, and was not written: {fault}")
    return GgufRecord(
        kind=KINDS[dtype],
        tokens=found.tokens,
        logit_gap=found.largest,
        same_top=found.top1,
        replies=found.prompts,
        same_replies=found.same_replies,
        notes=[*written.notes, *(f"transformers cuts {text!r} otherwise" for text in found.texts)],
    )


def _asked(setting: Setting):
    if setting.task.answers == "read":
        return CONTINUATION
    prompt = setting.task.prompt
    return conversation(setting.renderer) if prompt is None else instruction(setting.renderer, prompt)


def context_of(setting: Setting) -> int:
    """Tokens that any row of the training or the benchmark takes with its reply, and no fewer than Ollama takes anyway;
    Ollama cuts what is longer without a word."""
    render, new_tokens = setting.renderer, setting.decoding.max_new_tokens
    asked = [e for e in setting.data.examples[setting.recipe.eval.split] if not isinstance(e, Text)]
    longest = max((example_length(render, example, new_tokens) for example in asked), default=0)
    rounded = math.ceil(max(longest, render.row_length, OLLAMA_CONTEXT) / 256) * 256
    return min(rounded, setting.facts.context or rounded)


def _prompts(setting: Setting) -> list[list[int]]:
    """The first prompts of the benchmark, cut to what the context leaves room for."""
    room = (setting.facts.context or 1024) - NEW_TOKENS
    render, found = setting.renderer, []
    for example in setting.data.examples[setting.recipe.eval.split][:PROMPTS]:
        ids = render.prompt_ids(example.turns) if example.turns else render.windows(example.answer)[0][1]
        found.append(list(ids[:room]))
    return found


def _read_back(file: Path, merged: Path, prompts: list[list[int]], template: str | None) -> Readback:
    asked = {"file": str(file), "folder": str(merged), "prompts": prompts, "template": template}
    failed = "the GGUF file cannot be read back"
    printed = run_fresh("inlay.tuner.export.gguf_check", stdin=json.dumps(asked), failed=failed)
    told = json.loads(printed.strip().splitlines()[-1])
    return Readback(**{**told, "texts": tuple(told["texts"])})
