"""Templates that open an answer otherwise than their generation prompt ends: what is trained, benchmarked and exported
is one prompt. The reference is the tokenizer's own tokenization of the whole conversation.
"""

from __future__ import annotations

import json

import gguf_models
import pytest
import tiny
import tiny_runs
from chat_templates import QWEN3, TEMPLATES
from tiny_runs import inlay

from inlay.eval import Reply, Turn
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export import folder as folders
from inlay.tuner.export.chat_template import trained_template
from inlay.tuner.export.modelfile import Conversation, conversation

BLOCK = "<think>\n\n</think>\n\n"
ASKED = (Turn("user", "Where is Anna?"),)
TALK = (*ASKED, Turn("assistant", "Anna has not arrived.", trained=True), Turn("user", "When will it come?"))
ANSWER = "On Monday"
ALSO = ("mistral", "llama-2", "vicuna")


def tokenizer(kind: str, template: str):
    made = tiny.tokenizer(bos=True) if kind == "byte-level" else gguf_models.sentencepiece(prefix=kind)
    made.chat_template = template
    return made


def messages(*turns: Turn) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def own_ids(tokens, *turns: Turn, asked: bool) -> tuple[int, ...]:
    told = tokens.apply_chat_template(messages(*turns), add_generation_prompt=asked, return_dict=True)
    start = tokens("")["input_ids"]  # where the template does not print it
    return tuple(told["input_ids"] if told["input_ids"][:1] == start else start + told["input_ids"])


every_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
every_tokenizer = pytest.mark.parametrize("kind", ["byte-level", "prepend", "first"])


@every_template
@every_tokenizer
@pytest.mark.parametrize("turns", [ASKED, TALK], ids=len)
def test_s6_a_prompt_is_what_the_exported_template_renders(template, kind, turns):
    tokens = tokenizer(kind, template)
    made = Renderer(tokens, "causal")
    prompt = made.prompt_ids(turns)
    if template != QWEN3:
        assert prompt == own_ids(tokens, *turns, asked=True)
    tokens.chat_template = trained_template(made, None)
    assert prompt == own_ids(tokens, *turns, asked=True)
    again = Renderer(tokens, "causal")
    assert (again.lead, again.prompt_ids(turns)) == ("", prompt)


@every_template
@every_tokenizer
@pytest.mark.parametrize("turns", [ASKED, TALK], ids=len)
def test_s8_an_answer_is_cut_as_in_the_whole_conversation(template, kind, turns):
    tokens = tokenizer(kind, template)
    made = Renderer(tokens, "causal")
    row = made.rows(Reply("1", turns, (ANSWER,)))[-1]
    answer = made.answer_ids(turns, ANSWER)
    assert row.ids[: row.answer_start + len(answer)] == (*made.prompt_ids(turns), *answer)
    said = answer[: next(i for i, token in enumerate(answer) if token in made.stop_ids)]
    own = own_ids(tokens, *turns, Turn("assistant", ANSWER), asked=False)
    end = row.answer_start + len(said)
    assert row.ids[:end] == own[:end]
    assert made.decode(answer) == ANSWER


@every_tokenizer
def test_s5_a_template_without_end_marks_has_none_in_its_history(kind):
    made = Renderer(tokenizer(kind, TEMPLATES["vicuna"]), "causal")
    first, second = made.rows(Reply("1", TALK, (ANSWER,)))
    for row in (first, second):
        assert row.ids.count(made.stop_ids[0]) == 1
    assert made.decode(first.ids[first.answer_start :]) == "Anna has not arrived."


def test_a_template_that_is_asked_for_no_thoughts_prints_their_block_once():
    tokens = tiny.tokenizer(QWEN3)
    made = Renderer(tokens, "causal")
    asked = {"tokenize": False, "add_generation_prompt": True}
    own = tokens.apply_chat_template(messages(*ASKED), enable_thinking=False, **asked)
    assert made.prompt_text(ASKED) == own  # of the untouched base's benchmark, too
    assert made.lead == BLOCK
    tokens.chat_template = trained_template(made, None)
    for thoughts in ({}, {"enable_thinking": False}, {"enable_thinking": True}):
        text = tokens.apply_chat_template(messages(*ASKED), **asked, **thoughts)
        assert text == own == f"<|im_start|>user\nWhere is Anna?<|im_end|>\n<|im_start|>assistant\n{BLOCK}"
    text = tokens.apply_chat_template(messages(*ASKED), tokenize=False)
    assert text == "<|im_start|>user\nWhere is Anna?<|im_end|>\n"


@every_template
def test_a_modelfile_prints_the_prompt(template):
    made = Renderer(tiny.tokenizer(template, bos=True), "causal")
    found = conversation(made)
    assert isinstance(found, Conversation)
    start = "" if template == QWEN3 else "<|bos|>"
    assert start + found.prompt(ASKED) == made.prompt_text(ASKED)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function (name of a template) -> a folder with a run of a tiny model that has it."""

    def train(name: str):
        folder = tmp_path_factory.mktemp(name)
        tokens = gguf_models.byte_level("qwen2") if name == "qwen3" else gguf_models.sentencepiece()
        tokens.chat_template = TEMPLATES[name]
        gguf_models.save(folder / "model", "qwen3" if name == "qwen3" else "llama", tokens)
        tiny_runs.world(folder, folder / "model")
        path = tiny_runs.recipe(folder, "lora", "dialogue", bits=32)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            code, _, err = inlay("run", path.name, "--output", "run")
        assert code == 0, err
        return folder

    return train


@pytest.mark.parametrize("name", ["qwen3", *(pytest.param(n, marks=pytest.mark.slow) for n in ALSO)])
def test_s34_merged_and_gguf_render_the_prompts_of_the_benchmark(name, trained, monkeypatch):
    from transformers import AutoTokenizer

    folder = trained(name)
    monkeypatch.chdir(folder)
    code, _, err = inlay("export", "run", "--to", "ship", "--format", "gguf", "--dtype", "fp32")
    assert code == 0, err
    made = json.loads((folder / "ship" / "export.json").read_text())
    assert made["proof"]["same_prompts"] == 6  # of the merged model that the file was written from
    line = json.loads((folder / "run" / "predictions.jsonl").read_text().splitlines()[0])
    row = json.loads((folder / "dialogue-test.jsonl").read_text().splitlines()[0])
    read_back = AutoTokenizer.from_pretrained(folder / "ship", gguf_file="model.gguf")
    text = read_back.apply_chat_template(row["messages"][:-1], tokenize=False, add_generation_prompt=True)
    assert text == line["prompt"]
    modelfile = (folder / "ship" / "Modelfile").read_text()
    assert 'TEMPLATE """' in modelfile
    assert "\nPARAMETER num_ctx 256\n" in modelfile  # all that the model takes


def test_s34_a_start_of_text_is_rendered_and_another_prompt_is_told_from_other_weights(tmp_path, monkeypatch):
    tokens = tiny.tokenizer(QWEN3, bos=True)
    tiny_runs.world(tmp_path, tiny.save(tmp_path / "model", "llama", tokens=tokens))
    monkeypatch.chdir(tmp_path)
    path = tiny_runs.recipe(tmp_path, "lora", "dialogue", bits=32)
    assert inlay("run", path.name, "--output", "run")[0] == 0
    code, _, err = inlay("export", "run", "--to", "ship", "--dtype", "fp32")
    assert code == 0, err
    assert json.loads((tmp_path / "ship" / "export.json").read_text())["proof"]["same_prompts"] == 6
    monkeypatch.setattr(folders, "trained_template", lambda *_: QWEN3)
    code, _, err = inlay("export", "run", "--to", "other", "--dtype", "fp32")
    assert code == 1
    assert "its chat template renders 6 of 6 prompts to other tokens" in err
    assert "the weights are right" in err
