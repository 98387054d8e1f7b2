"""The trial of an export: the benchmarked model and a process that knows only the folder answer the same questions."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from inlay.tuner import base as base_models
from inlay.tuner.console import Progressing
from inlay.tuner.export import proof, witness
from inlay.tuner.export.chat_template import around
from inlay.tuner.export.fresh_process import run_fresh
from inlay.tuner.export.proof import Reference
from inlay.tuner.export.records import Proof
from inlay.tuner.export.reference import question_reference
from inlay.tuner.export.source import Source
from inlay.tuner.export.witness import Answers, Questions

if TYPE_CHECKING:
    from torch import Tensor


class Trial:
    """Holds exports of one source against it; the reference is opened once, after the first export has answered.

    With `adapter`, what is exported is the adapter itself, with its loader.
    """

    def __init__(self, source: Source, dtype: str, show: Progressing, *, adapter: bool = False) -> None:
        self._source, self._dtype, self._show, self._beside = source, dtype, show, adapter
        setting = source.setting
        examples = setting.data.examples[setting.recipe.eval.split]
        plain = setting.renderer.prompt_format == "plain"
        self._questions = Questions(
            kind=setting.facts.kind,
            examples=examples,
            prompt_format=setting.renderer.prompt_format,
            around=(plain and around(setting.task.prompt or "")) or ("", ""),
            prepends=setting.method.prepends if adapter else "nothing",
            decoding=setting.decoding,
            batch_size=setting.recipe.eval.batch_size,
            window=setting.renderer.window,
            stride=setting.renderer.stride,
            compared=witness.fitting(len(setting.tokenizer)),
        )
        self._reference: Reference | None = None

    def judge(self, folder: Path) -> Proof:
        """Compares the export in `folder` with the benchmarked model.

        Raises:
            AnswerNo: it does not open.
        """
        answers, logits = self._hear(folder)
        reference = self._opened()
        setting = self._source.setting
        same, tied = proof.texts(reference, answers.records, self._questions, setting.renderer)
        scores = proof.score_pairs(setting.metrics, reference.records, answers.records)
        proved = Proof(
            distance=proof.distance(reference.logits, logits),
            floor=reference.floor,
            kl_limit=proof.kl_limit(reference.floor),
            rows=len(answers.records),
            same_texts=same,
            tied_texts=tied,
            same_prompts=answers.prompts if self._source.formatted else None,
            benchmark_nll=reference.benchmark_nll,
            int8=reference.int8,
            scores=scores,
        )
        if reference.floor and (moved := proof.moved(scores)):
            records = witness.question(reference.scorable, self._questions, setting.renderer, self._tell)
            again = proof.score_pairs(setting.metrics, records, answers.records)
            beyond = {name: again[name].change for name in moved if name in proof.moved(again)}
            proved = proved.model_copy(update={"beyond_dtype": beyond})
        return proved.model_copy(update={"faults": proof.faults(proved)})

    def _opened(self) -> Reference:
        if self._reference is None:
            source = self._source
            self._reference = question_reference(
                source.setting,
                source.adapter,
                source.quantization,
                self._questions,
                dtype=self._dtype,
                beside=self._beside,
                benchmarked=source.benchmarked,
                progress=self._tell,
            )
        return self._reference

    def _tell(self, what: str, done: int, total: int) -> None:
        self._show.step(f"reference: {what}", done, total)

    def _hear(self, folder: Path) -> tuple[Answers, list[Tensor]]:
        """Lets a fresh process without network open the export and answer."""
        # By process: one of an export that was killed may still be writing.
        asked, said = (folder.with_name(f"{folder.name}.{os.getpid()}.{part}") for part in ("questions", "answers"))
        rows = len(self._questions.examples)
        self._show.say(f"proof   {rows} rows, the export opened in a new process")
        _free_gpu()
        try:
            asked.write_text(self._questions.model_dump_json(), encoding="utf-8")
            run_fresh(
                "inlay.tuner.export.witness",
                [str(folder), str(asked), str(said)],
                failed="the export does not open or answer",
                environment={"BASE": str(self._source.setting.files.folder)},  # an adapter's loader asks where it is
            )
            return witness.read_answers(said)
        finally:
            asked.unlink(missing_ok=True)
            shutil.rmtree(said, ignore_errors=True)


def _free_gpu() -> None:
    """Gives back what merging has left on the GPU, where the process of the export needs it."""
    if base_models.on_gpu():
        import torch

        gc.collect()
        torch.cuda.empty_cache()
