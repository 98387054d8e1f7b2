"""A good recipe, and recipes with one mistake each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from inlay.tuner.problems import Problem, RequestError
from inlay.tuner.recipe.loader import parse

GOOD = """\
name: good
seed: 0
base:
  model: embedded
  quantization: {bits: 4}
adapter:
  method: lora
  r: 8
task:
  type: summarization
  data: embedded
train:
  max_steps: 5
eval:
  split: test
"""


def mistakes(text: str, folder: Path, overrides: tuple[str, ...] = ()) -> tuple[Problem, ...]:
    """The problems of a recipe, which must have some."""
    with pytest.raises(RequestError) as caught:
        parse(text.encode(), "wrong.yaml", folder, overrides)
    assert caught.value.exit_code == 2
    return caught.value.problems


# A title; what is changed in the good recipe; line, dotted path, and words that the problem must hold.
WRONG = r"""
block misspelt
  adapter: => adaptor:
  6 adaptor: did you mean `adapter`?

key misspelt
  max_steps => max_step
  13 train.max_step: did you mean `max_steps`?

option misspelt
    r: 8 =>   lora_dropuot: 0.1
  8 adapter.lora_dropuot: did you mean `lora_dropout`?

nonsense key
  seed: 0 => flavour: 0
  2 flavour: known: `name`, `seed`

wrong block
  seed: 0 => learning_rate: 1e-3
  2 learning_rate: belongs under `train`

wrong block, nested
  split: test => num_beams: 4
  15 eval.num_beams: belongs under `eval.decoding`

nested too deep
  max_steps: 5 => seed: 5
  13 train.seed: belongs at the top

option of another method
    r: 8 =>   num_virtual_tokens: 8
  8 adapter.num_virtual_tokens: an option of mam, p_tuning, prefix, prompt

LLaMA-Factory rank
    r: 8 =>   lora_rank: 8
  8 adapter.lora_rank: LLaMA-Factory's word; here it is `adapter.r`

axolotl and TRL rank
    r: 8 =>   lora_r: 8
  8 adapter.lora_r: axolotl's and TRL's word; here it is `adapter.r`

axolotl base
    model: embedded =>   base_model: embedded
  4 base.base_model: here it is `base.model`

LLaMA-Factory bits
  {bits: 4} => {quantization_bit: 4}
  5 base.quantization.quantization_bit: `base.quantization.bits`

TRL epochs
  max_steps: 5 => num_train_epochs: 5
  13 train.num_train_epochs: `train.epochs`

axolotl length
  max_steps: 5 => sequence_len: 512
  13 train.sequence_len: axolotl's word; here it is `train.max_length`

no counterpart
  max_steps: 5 => optim: adamw_8bit
  13 train.optim: no counterpart here

remote code
    model: embedded =>   model: embedded\n  trust_remote_code: true
  5 base.trust_remote_code: cannot allow code to run

text for a number
  max_steps: 5 => max_steps: five
  13 train.max_steps: is the text `five`; expected a whole number from 1 to 10,000,000

quoted number
  max_steps: 5 => max_steps: '5'
  13 train.max_steps: write `5` without quotes

grouped digits
  max_steps: 5 => max_steps: 1_000
  13 train.max_steps: write `1000`

fraction for a count
  max_steps: 5 => max_steps: 5.5
  13 train.max_steps: is `5.5`; expected a whole number

float for a count
  max_steps: 5 => max_steps: 1e3
  13 train.max_steps: write `1000`

number for a switch
  max_steps: 5 => gradient_checkpointing: 1
  13 train.gradient_checkpointing: expected true or false

yes for a switch
  max_steps: 5 => gradient_checkpointing: yes
  13 train.gradient_checkpointing: write `true`

switch for a number
  seed: 0 => seed: false
  2 seed: is `false`; expected a whole number

number for text
  name: good => name: 12
  1 name: put quotes round it

nothing for text
  name: good => name:
  1 name: is empty; expected 1 to 64 letters

not one of a few
  {bits: 4} => {bits: 5}
  5 base.quantization.bits: expected one of `4`, `8`, `16`, `32`

nearly one of a few
  max_steps: 5 => lr_scheduler: cosin
  13 train.lr_scheduler: did you mean `cosine`?

too big
    r: 8 =>   r: 100000
  8 adapter.r: expected a whole number from 1 to 4,096

below zero
  max_steps: 5 => learning_rate: -1e-4
  13 train.learning_rate: above 0 and at most 1

word for a block
  base:\n  model: embedded\n  quantization: {bits: 4} => base: gpt2
  3 base: write `base: {model: gpt2}`

list for a block
  train:\n  max_steps: 5 => train: [5]
  12 train: is a list; expected a block

block for a word
  max_steps: 5 => lr_scheduler: {a: 1}
  13 train.lr_scheduler: is a block; expected one of

word for a list
  split: test => metrics: rouge
  15 eval.metrics: write `metrics: [rouge]`

wrong list item
  max_steps: 5 => report_to: [wandb, tensorbord]
  13 train.report_to[1]: did you mean `tensorboard`?

no base
  base:\n  model: embedded\n  quantization: {bits: 4}\n => 
  0 base: `base` is missing

no method
    method: lora\n => 
  6 adapter.method: `adapter.method` is missing

unknown method
  method: lora => method: loar
  7 adapter.method: did you mean `lora`?

method that is not offered
  method: lora => method: lily
  7 adapter.method: is not offered: its routing averages over all tokens

unknown task
  summarization => summarisation
  10 task.type: did you mean `summarization`?

unknown metric
  split: test => metrics: [rouge, blue]
  15 eval.metrics[1]: did you mean `bleu`?

metric by path
  split: test => metrics: [./my_metric.py]
  15 eval.metrics[0]: unknown metric

metric twice
  split: test => metrics: [bleu, bleu]
  15 eval.metrics[1]: stands twice

unknown column
  data: embedded => data: embedded\n  columns: {documnet: text}
  12 task.columns.documnet: did you mean `document`?

unknown template field
  data: embedded => data: embedded\n  prompt: 'Say {dokument}'
  12 task.prompt: unknown field `{dokument}`

template without the row
  data: embedded => data: embedded\n  prompt: Summarize!
  12 task.prompt: never uses `{document}`

broken template
  data: embedded => data: embedded\n  prompt: 'Sum {document'
  12 task.prompt: malformed

labels without classes
  data: embedded => data: embedded\n  labels: {a: b}
  12 task.labels: no classes to name

two ends
  max_steps: 5 => max_steps: 5\n  epochs: 2
  13 train.max_steps: both say when training ends

sampling field alone
  split: test => decoding: {temperature: 0.7}
  15 eval.decoding.temperature: add `do_sample: true`

sampling beams
  split: test => decoding: {do_sample: true, num_beams: 4}
  15 eval.decoding.num_beams: does not sample

4-bit field at 16 bits
  {bits: 4} => {bits: 16, quant_type: fp4}
  5 base.quantization.quant_type: has 16 bits

revision of nothing
  model: embedded => model: embedded\n  revision: main
  5 base.revision: on the hub

patience without validation
  max_steps: 5 => early_stopping_patience: 3
  13 train.early_stopping_patience: add `eval_steps: 20`

stopping metric alone
  max_steps: 5 => early_stopping_metric: bleu
  13 train.early_stopping_metric: add `early_stopping_patience: 3`

turns of no dialogue
  split: test => turns: all
  15 eval.turns: one answer in a row

no rows
  data: embedded => data: {}
  11 task.data: names no training rows

rows twice
  data: embedded => data: {embedded: true, train: rows.jsonl}
  11 task.data.train: remove one of the two

no test rows
  data: embedded => data: {train: rows.jsonl}
  15 eval.split: draw: {test: 0.1}

no validation rows
  data: embedded\ntrain:\n => data: {train: rows.jsonl, draw: {test: 0.1}}\ntrain:\n  eval_steps: 2\n
  13 train.eval_steps: draw: {validation: 0.1}

all rows drawn
  data: embedded => data: {train: rows.jsonl, draw: {test: 0.5, validation: 0.5}}
  11 task.data.draw: no row is left to train on

drawn and named
  data: embedded => data: {train: rows.jsonl, test: rows.jsonl, draw: {test: 0.5}}
  11 task.data.draw.test: named and drawn

hub field without a hub
  data: embedded => data: {train: rows.jsonl, config: x, draw: {test: 0.1}}
  11 task.data.config: dataset on the hub

file misspelt
  data: embedded => data: {train: row.jsonl, draw: {test: 0.1}}
  11 task.data.train: did you mean `rows.jsonl`?

model folder misspelt
  model: embedded => model: ./modle
  4 base.model: there is no folder

neither folder nor hub id
  model: embedded => model: my model
  4 base.model: neither a folder nor a hub id
"""


class WrongRecipe(NamedTuple):
    """One mistake: `old` in the good recipe becomes `new`, and the problem names `line` and `path` in `words`."""

    old: str
    new: str
    line: int
    path: str
    words: str


def cases() -> dict[str, WrongRecipe]:
    """The wrong recipes by title."""
    found = {}
    for paragraph in WRONG.strip().split("\n\n"):
        title, change, outcome = (line.strip() for line in paragraph.splitlines())
        old, _, new = (part.strip().replace("\\n", "\n") for part in change.partition("=>"))
        place, _, words = outcome.partition(": ")
        line, _, path = place.partition(" ")
        found[title] = WrongRecipe(old, new, int(line), path, words)
    return found
