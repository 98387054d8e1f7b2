"""A model under questioning: what it writes, how likely it holds the answers, and its logits on some of them.

The benchmarked model and the export answer the same questions by the same code. The export does so in a process of its
own, which opens the folder with plain transformers and has never seen the base:

    python -m inlay.tuner.export.witness FOLDER QUESTIONS ANSWERS
"""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from inlay.eval import Choice, Decoding, Record, Reply, Text, Turn
from inlay.eval.likelihood import answer_logits, answer_pairs
from inlay.eval.score import score
from inlay.eval.scoring import Scorable, observing
from inlay.tuner.data.rendering import Renderer

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

LOGIT_BYTES = 2**28  # of logits that are kept, at most
WORKING_BYTES = 2**30  # of a GPU, that are left beside the weights
WINDOWS = 8  # of a long text, that are compared by their logits
RECORDS, LOGITS = "records.json", "logits.safetensors"


class Questions(BaseModel):
    """What both models are asked.

    Attributes:
        examples: of the benchmark, all of one kind.
        prompt_format: `plain` or `chat template`, as in training.
        prepends: what an adapter that is not merged puts before the text.
        around: what the export's chat template puts around the text of a task by itself.
        window, stride: of texts.
        compared: how many answer tokens, from the first example on, are compared by their logits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["causal", "seq2seq"]
    examples: tuple[Reply, ...] | tuple[Choice, ...] | tuple[Text, ...]
    prompt_format: str
    around: tuple[str, str]
    prepends: Literal["nothing", "tokens", "keys"] = "nothing"
    decoding: Decoding
    batch_size: int
    window: int
    stride: int
    compared: int

    def renderer(self, tokenizer: PreTrainedTokenizerBase) -> Renderer:
        """The rendering of training, by this tokenizer."""
        tokenizer = copy.copy(tokenizer)
        if self.prompt_format == "plain":
            tokenizer.chat_template = None
        return Renderer(tokenizer, self.kind, window=self.window, stride=self.stride)


class Answers(BaseModel):
    """What a model said.

    Attributes:
        records: of all examples, in their order.
        prompts: how many prompts the tokenizer's own chat template renders to the tokens of training; None where it
            has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    records: tuple[Record, ...]
    prompts: int | None = None


def question(
    scorable: Scorable, questions: Questions, renderer: Renderer, progress: Callable[[str, int, int], None]
) -> tuple[Record, ...]:
    """What the model writes, and how likely it holds the answers."""
    found = score(
        scorable,
        questions.examples,
        renderer,
        (),
        decoding=questions.decoding,
        batch_size=questions.batch_size,
        progress=progress,
    )
    return tuple(found.records)


def logits(scorable: Scorable, questions: Questions, renderer: Renderer) -> list[Tensor]:
    """For each compared example the logits (answer tokens, vocabulary) that predict its answer, fp32, on the CPU."""
    import torch

    found, room = [], questions.compared
    with observing(scorable):
        for example in questions.examples:
            rows = []
            for read, answer in answer_pairs(renderer, example)[:WINDOWS]:
                if said := answer[:room]:
                    rows.append(next(answer_logits(scorable, [read], [said])).float().cpu())
                    room -= len(said)
            if rows:
                found.append(torch.cat(rows))
            if not room:
                break
    return found


def fitting(vocabulary: int) -> int:
    """How many tokens have logits of at most `LOGIT_BYTES`; at least one."""
    return max(1, LOGIT_BYTES // (4 * vocabulary))


def read_answers(folder: Path) -> tuple[Answers, list[Tensor]]:
    """What the process of the export wrote."""
    from safetensors.torch import load_file

    tensors = load_file(folder / LOGITS)
    answers = Answers.model_validate_json((folder / RECORDS).read_text(encoding="utf-8"))
    return answers, [tensors[str(i)] for i in range(len(tensors))]


def main() -> None:
    """Opens an export as anyone would, and questions it."""
    from safetensors.torch import save_file

    folder, asked, said = map(Path, sys.argv[1:])
    questions = Questions.model_validate_json(asked.read_text(encoding="utf-8"))
    model, tokenizer = _with_its_loader(folder) if (folder / "load.py").is_file() else _plain(folder)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    inner = model if questions.prepends == "nothing" else model.get_base_model()
    scorable = Scorable(model, inner, questions.kind, questions.prepends, int(pad))
    renderer = questions.renderer(tokenizer)
    answers = Answers(
        records=question(scorable, questions, renderer, lambda *_: None),
        prompts=_same_prompts(tokenizer, questions, renderer),
    )
    said.mkdir()
    tensors = {str(i): tensor.contiguous() for i, tensor in enumerate(logits(scorable, questions, renderer))}
    save_file(tensors, said / LOGITS)
    (said / RECORDS).write_text(answers.model_dump_json(), encoding="utf-8")


def _plain(folder: Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A merged model, as anyone opens it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    model, info = kind.from_pretrained(folder, dtype="auto", use_safetensors=True, output_loading_info=True)
    lacking = {name: sorted(map(str, keys)) for name, keys in info.items() if name != "error_msgs" and keys}
    if lacking:
        raise SystemExit(f"the export does not load cleanly: {json.dumps(lacking)[:500]}")
    return model.to(_place(folder)).eval(), AutoTokenizer.from_pretrained(folder)


def _place(folder: Path) -> str:
    """The GPU where there is room for the weights: in fp32 they are twice or eight times what was trained on."""
    import torch

    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    roomy = torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > weights + WORKING_BYTES
    return "cuda:0" if roomy else "cpu"


def _with_its_loader(folder: Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """An adapter on its base, by the program that lies beside it."""
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def _same_prompts(tokenizer: PreTrainedTokenizerBase, questions: Questions, renderer: Renderer) -> int | None:
    if not tokenizer.chat_template or not questions.examples[0].turns:
        return None
    same = 0
    for example in questions.examples:
        messages = [_message(turn, questions.around) for turn in example.turns]
        found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
        same += tuple(found["input_ids"]) == renderer.prompt_ids(example.turns)
    return same


def _message(turn: Turn, around: tuple[str, str]) -> dict[str, str]:
    if turn.role != "prompt":
        return {"role": turn.role, "content": turn.text}
    before, after = around
    return {"role": "user", "content": turn.text.removeprefix(before).removesuffix(after)}


if __name__ == "__main__":
    main()
