"""Ollama's Modelfile: the prompt that was trained, printed by Go's own template engine where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import tiny

from inlay.eval import Decoding, Reply, Text, Turn
from inlay.tuner.data.rendering import Renderer
from inlay.tuner.export import gguf_part
from inlay.tuner.export.chat_template import plain_template
from inlay.tuner.export.modelfile import CONTINUATION, Conversation, conversation, instruction, write_modelfile

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set lead = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set lead = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'assistant' %} {{ m['content'] }} <|end|>"
    "{% else %}<|bos|>[INST] {{ (lead if loop.first else '') + m['content'] }} [/INST]{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + tiny.CHATML
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are {helpful}.<|im_end|>\n{% endif %}"
    + tiny.CHATML
)
# As Qwen3's: the last reply opens with an empty block of thoughts, earlier ones without.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COUNTING = (
    "{% for m in messages %}<|im_start|>{{ loop.index }}{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORMATS = {
    "plain": None,
    "chatml": tiny.CHATML,
    "llama-2": LLAMA2,
    "no-system": NO_SYSTEM,
    "default-system": DEFAULT_SYSTEM,
    "thinking": THINKING,
    "starting": "{{ '<|bos|>' }}" + tiny.CHATML,
}
TALKS = (
    (Turn("user", "Where is Anna?"),),
    (Turn("system", 'Be "kind" {{ and }} brief.\n- Always.'), Turn("user", "Hey!\n\nHow are you?")),
    (
        Turn("user", "One {{ .System }}"),
        Turn("assistant", "Two\nlines"),
        Turn("user", "猫 🙂"),
        Turn("assistant", "3"),
        Turn("user", "Four"),
    ),
    (Turn("system", "S"), Turn("user", "U"), Turn("assistant", "A"), Turn("user", "V")),
)
GO = """
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct{ Role, Content string }

func main() {
	var asked struct {
		Template string
		Talks    [][]*Message
	}
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	parsed := template.Must(template.New("").Option("missingkey=zero").Parse(asked.Template))
	printed := []string{}
	for _, talk := range asked.Talks {
		var system []string
		for _, message := range talk {
			if message.Role == "system" {
				system = append(system, message.Content)
			}
		}
		var out strings.Builder
		values := map[string]any{"System": strings.Join(system, "\\n\\n"), "Messages": talk, "Response": ""}
		if err := parsed.Execute(&out, values); err != nil {
			panic(err)
		}
		printed = append(printed, out.String())
	}
	json.NewEncoder(os.Stdout).Encode(printed)
}
"""


def renderer(template: str | None, *, bos: bool = False) -> Renderer:
    return Renderer(tiny.tokenizer(template, bos=bos), "causal")


def template_of(text: str) -> str | None:
    found = re.search('^TEMPLATE """(.*)"""$', text, re.DOTALL | re.MULTILINE)
    return found and found[1]


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """A function (template, talks) -> what Go prints; skips where Go is not installed."""
    if not shutil.which("go"):
        pytest.skip("Go is not installed: its template engine is the reference")
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(GO, encoding="utf-8")
    subprocess.run(["go", "build", "-o", "print", "main.go"], cwd=folder, check=True)

    def printed(template: str, talks) -> list[str]:
        messages = [[{"Role": turn.role, "Content": turn.text} for turn in talk] for talk in talks]
        asked = json.dumps({"Template": template, "Talks": messages})
        done = subprocess.run([folder / "print"], input=asked, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return printed


@pytest.mark.parametrize("name", FORMATS)
def test_the_trained_prompt_is_taken_apart_and_put_together_again(name):
    render = renderer(FORMATS[name])
    found = conversation(render)
    assert isinstance(found, Conversation)
    for talk in TALKS:
        if talk[0].role != "system" or name != "no-system":
            assert found.prompt(talk) == render.prompt_text(talk)


@pytest.mark.parametrize("name", FORMATS)
def test_go_prints_the_prompt_that_was_trained(name, go, tmp_path):
    render = renderer(FORMATS[name])
    write_modelfile(tmp_path / "Modelfile", "model.gguf", conversation(render), render, Decoding(), context=256)
    template = template_of((tmp_path / "Modelfile").read_text(encoding="utf-8"))
    talks = [talk for talk in TALKS if talk[0].role != "system" or name != "no-system"]
    assert go(template, talks) == [render.prompt_text(talk) for talk in talks]


def test_a_reply_as_ollama_hands_it_back_gets_no_second_space(go):
    """Generated text begins with the space that the prompt leaves to it."""
    render = renderer(None)
    talk = (Turn("user", "U"), Turn("assistant", " A"), Turn("user", "V"))
    trained = render.prompt_text((talk[0], Turn("assistant", "A"), talk[2]))
    empty = render.prompt_text((talk[0], Turn("assistant", ""), talk[2]))
    assert go(conversation(render).go(), [talk]) == [trained]
    assert "Bot: A" in trained
    assert "Bot: A" not in empty


@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_a_message_stands_for_the_one_text_of_a_task(name, go):
    render = renderer(FORMATS[name])
    template = instruction(render, "Text: {document}\n\nSummary {{in brief}}:").go()
    talks = [
        (Turn("user", "An {odd} text"),),
        (Turn("user", "First"), Turn("assistant", "Yes"), Turn("user", "Second")),
    ]
    assert go(CONTINUATION.go(), talks) == ["An {odd} text", "Second"]
    texts = ["Text: An {odd} text\n\nSummary {in brief}:", "Text: Second\n\nSummary {in brief}:"]
    assert go(template, talks) == [render.prompt_text((Turn("prompt", text),)) for text in texts]


def test_of_several_fields_a_message_is_the_whole_prompt(tmp_path):
    file = tmp_path / "Modelfile"
    prompt = "{context}\n\nQuestion: {question}\nAnswer:"
    render = renderer(None)
    write_modelfile(file, "model.gguf", instruction(render, prompt), render, Decoding(), context=256)
    text = file.read_text(encoding="utf-8")
    assert "#     Question: {question}\n" in text
    assert "Question" not in template_of(text)
    assert template_of(text).count("{{ .Content }}") == 1


def test_s5_a_start_token_that_ollama_adds_is_not_printed_too():
    printing = FORMATS["starting"]
    assert conversation(renderer(printing, bos=True)).opening == "<|im_start|>user\n"
    assert conversation(renderer(printing)).opening == "<|bos|><|im_start|>user\n"
    assert conversation(renderer(printing, bos=True)).system[0] == "<|im_start|>system\n"
    assert instruction(renderer(printing, bos=True), "{text}").before == "<|im_start|>user\n"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (COUNTING, "otherwise when others come"),
        ("{{ strftime_now('%d %b %Y') }}" + tiny.CHATML, "date"),
        (
            tiny.CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'user' %}"),
            "every turn",
        ),
        (tiny.CHATML.replace("m['content']", "m['content'] | upper"), "otherwise"),
        (tiny.CHATML.replace("<|im_start|>", '"""'), "Modelfile"),
        (tiny.CHATML.replace("<|im_start|>", "\x01"), "Modelfile"),
    ],
    ids=["counting", "date", "silent", "upper", "quotes", "control"],
)
def test_a_prompt_that_go_cannot_print_is_left_out_and_said(template, reason, tmp_path):
    file = tmp_path / "Modelfile"
    render = renderer(template)
    told = conversation(render)
    write_modelfile(file, "model.gguf", told, render, Decoding(), context=256)
    text = file.read_text(encoding="utf-8")
    assert re.search(reason, told)
    assert f"# No TEMPLATE: {told}.\n" in text
    assert template_of(text) is None
    assert "\nFROM ./model.gguf\n" in text


@pytest.mark.parametrize(("name", "stops"), [("plain", ["<|end|>"]), ("chatml", ["<|end|>", "<|im_end|>"])])
def test_replies_end_and_are_chosen_as_in_the_benchmark(name, stops, tmp_path):
    file = tmp_path / "Modelfile"
    render = renderer(FORMATS[name])
    write_modelfile(file, "m.gguf", conversation(render), render, Decoding(max_new_tokens=48), context=256)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("PARAMETER")] == [
        *(f'PARAMETER stop "{stop}"' for stop in stops),
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_predict 48",
        "PARAMETER num_ctx 256",
    ]


@pytest.mark.parametrize(
    ("row_length", "words", "limit", "context"),
    [
        (1024, 10, 32768, 4096),  # what Ollama takes anyway
        (1024, 10, 2048, 2048),  # what the model takes
        (5000, 10, 32768, 5120),  # what a training row may take
        (1024, 6000, 32768, 6144),  # what a prompt of the benchmark takes with its reply
        (1024, 6000, None, 6144),
    ],
)
def test_what_was_trained_fits_in_the_context(row_length, words, limit, context):
    render = Renderer(tiny.tokenizer(), "causal", row_length=row_length)
    prompt = (Turn("prompt", "0" * words),)
    setting = SimpleNamespace(
        renderer=render,
        decoding=Decoding(max_new_tokens=100),
        recipe=SimpleNamespace(eval=SimpleNamespace(split="test")),
        data=SimpleNamespace(examples={"test": (Reply("1", prompt, ("yes",)), Text("2", "0" * 20000))}),
        facts=SimpleNamespace(context=limit),
    )
    assert len(render.prompt_ids(prompt)) == words
    assert gguf_part.context_of(setting) == context


def test_sampling_and_what_ollama_cannot_do(tmp_path):
    file = tmp_path / "Modelfile"
    sampled = Decoding(do_sample=True, temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.3, seed=5)
    write_modelfile(file, "m.gguf", CONTINUATION, renderer(None), sampled, context=256)
    text = file.read_text(encoding="utf-8")
    wanted = ("temperature 0.7", "top_p 0.9", "top_k 40", "min_p 0", "seed 5", "repeat_penalty 1.3", "repeat_last_n -1")
    assert [line for line in wanted if f"PARAMETER {line}\n" not in text] == []
    assert "# A message is the beginning of a text\n" in text
    write_modelfile(file, "m.gguf", CONTINUATION, renderer(None), Decoding(num_beams=4), context=256)
    assert "# The benchmark searched with 4 beams" in file.read_text(encoding="utf-8")


def printed(template: str, talk) -> str:
    """What transformers prints of a conversation with a template and tokenizer of its own."""
    messages = [{"role": turn.role, "content": turn.text} for turn in talk]
    return tiny.tokenizer(template).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("talk", TALKS, ids=len)
def test_the_plain_format_as_a_chat_template(talk):
    assert printed(plain_template(None), talk) == renderer(None).prompt_text(talk)


def test_a_task_s_prompt_as_a_chat_template():
    template = plain_template('Text: {document}\n\n"Summary" {{kurz: für 猫 🙂}}:')
    talk = (Turn("user", "First"), Turn("assistant", "Yes"), Turn("user", "An {odd} text"))
    assert printed(template, talk) == 'Text: An {odd} text\n\n"Summary" {kurz: für 猫 🙂}:'
    assert printed(plain_template("{question}, {context}"), talk) == "An {odd} text"
