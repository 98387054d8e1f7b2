"""Examples to token ids: what is a label, how many starts a row has, and that training and generation see one prompt.

References are the tokenizer's own call, `apply_chat_template`, and texts written out here.
"""

from __future__ import annotations

import random

import pytest
import tiny

from inlay.eval import Choice, Reply, Turn
from inlay.tuner.data.rendering import Rendered, Renderer
from inlay.tuner.export.chat_template import plain_template
from inlay.tuner.problems import RequestError

EOS, PAD, BOS, IM_END = 0, 1, 2, 4
TALK = (
    Turn("system", "Be kind."),
    Turn("user", "Hey, how are you?"),
    Turn("assistant", "I am fine.", trained=True),
    Turn("user", "Where is Anna?"),
)
TALK_ROW = Reply("talk", TALK, ("On Monday she comes.",))
SUMMARY_ROW = Reply("summary", (Turn("prompt", "Ben answers.\n\nSummary:"),), ("Ben speaks",))
LABEL_ROW = Choice("label", (Turn("prompt", "The film is long.\n\nLabel:"),), ("film", "sport"), 0)
ROWS = (TALK_ROW, SUMMARY_ROW, LABEL_ROW)

# Qwen3's way: the last answer opens with an empty block of thoughts, and thoughts of earlier turns are dropped.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'].split('</think>')[-1].strip() }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRIPPING = tiny.CHATML.replace("m['content']", "m['content'] | trim")
ENDLESS = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}" + (
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
STARTING = "{{ '<|bos|>' }}" + tiny.CHATML
REFUSING = "{{ raise_exception('roles must alternate') }}"
SILENT = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
CHATS = {"plain": None, "chatml": tiny.CHATML, "forgetful": FORGETFUL, "stripping": STRIPPING, "endless": ENDLESS}


def answers(rendered: Rendered) -> list[tuple[int, ...]]:
    """The runs of labels of a row."""
    runs: list[list[int]] = [[]]
    for token, label in zip(rendered.ids, rendered.trained, strict=True):
        if label:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tuple(run) for run in runs if run]


def renderer(chat: str = "plain", loss_on: str = "answer", **options) -> Renderer:
    return Renderer(tiny.tokenizer(CHATS.get(chat, chat), **options), "causal", loss_on)


@pytest.mark.parametrize("pad", ["own", "eos", None])
@pytest.mark.parametrize(("chat", "end"), [("plain", EOS), ("chatml", IM_END)])
@pytest.mark.parametrize("example", ROWS, ids=lambda example: example.id)
def test_s2_eos_is_a_label(pad, chat, end, example):
    tokenizer = tiny.tokenizer(CHATS[chat], pad={"own": "<|pad|>", "eos": "<|end|>", None: None}[pad])
    [row] = Renderer(tokenizer, "causal").rows(example)
    turns = [turn.text for turn in example.turns if turn.trained]
    last = example.references[0] if isinstance(example, Reply) else example.labels[example.gold]
    found = answers(row)
    assert [tokenizer.decode(ids[:-1]).strip() for ids in found] == [*turns, last]
    assert [ids.count(end) for ids in found] == [1] * len(found)
    assert all(ids[-1] == end for ids in found)


@pytest.mark.parametrize("example", ROWS, ids=lambda example: example.id)
@pytest.mark.parametrize("chat", [None, tiny.CHATML, STARTING], ids=["plain", "chatml", "chat-with-bos"])
@pytest.mark.parametrize("kind", ["bos", "none", "bos-is-eos-is-pad"])
def test_s5_bos(example, chat, kind):
    tokenizer = tiny.tokenizer(chat, bos=kind == "bos")
    start = BOS
    if kind == "bos-is-eos-is-pad":
        from tokenizers import processors

        tokenizer.bos_token = tokenizer.pad_token = tokenizer.eos_token
        tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
            single="<|end|> $A", special_tokens=[("<|end|>", EOS)]
        )
        tokenizer.chat_template = chat and chat.replace("<|bos|>", "<|end|>")
        start = EOS
    made = Renderer(tokenizer, "causal")
    own = sum(token == start for token in tokenizer("some text")["input_ids"])
    printed = chat == STARTING
    expected = max(own, int(printed))
    assert own == (kind != "none")
    [row] = made.rows(example)
    last = example.references[0] if isinstance(example, Reply) else example.labels[example.gold]
    prompt = made.prompt_ids(example.turns)
    scored = (*prompt, *made.answer_ids(example.turns, last))
    for ids in (row.ids, scored, prompt):
        leading = 0
        while ids[leading] == start:
            leading += 1
        assert leading == expected
        if kind == "bos":
            assert ids.count(start) == 1
    assert not any(row.trained[:expected])


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_s5_bos_printed_by_the_template_leaves_the_answer_as_it_is(loss_on):
    with_bos = renderer(STARTING, loss_on, bos=True)
    without = renderer("chatml", loss_on)
    [one], [two] = with_bos.rows(TALK_ROW), without.rows(TALK_ROW)
    assert one.ids == (BOS, *two.ids)
    assert one.answer_start == two.answer_start + 1
    assert one.trained == ((loss_on == "all"), *two.trained)


ALPHABETS = (
    "abcdefgh ABC 0123456789",
    " \n\t\r",
    ".,:;!?'\"-()[]{}<>|#/\\_",
    "äöüßéñøå",
    "кошкаспит",
    "猫在睡觉今天天气很好",
    "שלום مرحبا",
    "😀🙂👩\u200d🚀🇩🇪",
    "\u0301\u00a0\u2003\u3000",
)


def fuzzed_text(random: random.Random) -> str:
    words = ("".join(random.choices(random.choice(ALPHABETS), k=random.randint(1, 9))) for _ in range(6))
    text = random.choice(("", " ", "\n\n", "  ")).join(words)
    return text if text.strip() else f"{text}x"


def fuzzed(seed: int) -> Reply | Choice:
    """A random example of one of the three tasks."""
    draw = random.Random(seed)
    kind = seed % 3
    if kind == 0:
        turns = [Turn("system", fuzzed_text(draw))] if draw.random() < 0.5 else []
        for _ in range(draw.randint(0, 2)):
            turns += [Turn("user", fuzzed_text(draw)), Turn("assistant", fuzzed_text(draw), trained=True)]
        return Reply(f"{seed}", (*turns, Turn("user", fuzzed_text(draw))), (fuzzed_text(draw),))
    prompt = (Turn("prompt", f"{fuzzed_text(draw)}\n\nAnswer:"),)
    if kind == 1:
        return Reply(f"{seed}", prompt, (fuzzed_text(draw),))
    return Choice(f"{seed}", prompt, (fuzzed_text(draw), fuzzed_text(draw)), draw.randint(0, 1))


def hold_one_prompt(made: Renderer, seeds: range, *, lossless: bool) -> None:
    """Every trained answer stands behind the very prompt that generation reads, and is what scoring scores."""
    for seed in seeds:
        example = fuzzed(seed)
        last = example.references[0] if isinstance(example, Reply) else example.labels[example.gold]
        turns = (*example.turns, Turn("assistant", last, trained=True))
        wanted = [i for i, turn in enumerate(turns) if turn.trained]
        rows = made.rows(example)
        spans = [(row, start) for row in rows for start in label_starts(row)]
        assert len(spans) == len(wanted), seed
        for (row, start), i in zip(spans, wanted, strict=True):
            prompt, answer = made.prompt_ids(turns[:i]), made.answer_ids(turns[:i], turns[i].text)
            assert row.ids[:start] == prompt, (seed, i)
            assert row.ids[start : start + len(answer)] == answer, (seed, i)
            assert all(row.trained[start : start + len(answer)])
            assert start + len(answer) == len(row.ids) or not row.trained[start + len(answer)]
            if lossless:
                assert made.tokenizer.decode(prompt).endswith(made.prompt_text(turns[:i])), (seed, i)
                assert made.decode(answer) == turns[i].text.strip(), (seed, i)
        assert rows[-1].answer_start == spans[-1][1]


def label_starts(row: Rendered) -> list[int]:
    return [i for i, on in enumerate(row.trained) if on and not row.trained[i - 1]]


@pytest.mark.parametrize("bos", [False, True], ids=["", "bos"])
@pytest.mark.parametrize("chat", CHATS)
def test_s6_train_prefix_equals_generate_prompt(chat, bos):
    hold_one_prompt(renderer(chat, bos=bos), range(50), lossless=True)


@pytest.mark.parametrize("chat", ["plain", "chatml"])
@pytest.mark.parametrize("model", ["tinytalk-3m", "stories260k"])
def test_s6_train_prefix_equals_generate_prompt_of_real_tokenizers(shared_models, model, chat):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_models / model)
    tokenizer.chat_template = CHATS[chat]
    hold_one_prompt(Renderer(tokenizer, "causal"), range(50), lossless=False)


def test_prompt_is_what_apply_chat_template_gives():
    made = renderer("chatml")
    messages = [{"role": turn.role, "content": turn.text} for turn in TALK]
    text = made.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = made.tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)["input_ids"]
    assert made.prompt_text(TALK) == text
    assert list(made.prompt_ids(TALK)) == ids


def test_s7_loss_mask_same_for_both_formats():
    made = renderer("chatml")
    [row] = made.rows(TALK_ROW)
    pieces = (
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHey, how are you?<|im_end|>\n", False),
        ("<|im_start|>assistant\n", False),
        ("I am fine.<|im_end|>", True),
        ("\n<|im_start|>user\nWhere is Anna?<|im_end|>\n<|im_start|>assistant\n", False),
        ("On Monday she comes.<|im_end|>", True),
        ("\n", False),
    )
    ids = [(token, on) for text, on in pieces for token in made.tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert list(zip(row.ids, row.trained, strict=True)) == ids


def test_plain_dialogue_and_prompt_read_as_documented():
    made = renderer("plain")
    [talk], [summary] = made.rows(TALK_ROW), made.rows(SUMMARY_ROW)
    assert made.tokenizer.decode(talk.ids) == (
        "System: Be kind.\nUser: Hey, how are you?\nBot: I am fine.<|end|>\nUser: Where is Anna?\n"
        "Bot: On Monday she comes.<|end|>"
    )
    assert made.tokenizer.decode(summary.ids) == "Ben answers.\n\nSummary: Ben speaks<|end|>"


@pytest.mark.parametrize("chat", ["plain", "chatml", "forgetful"])
@pytest.mark.parametrize("example", ROWS, ids=lambda example: example.id)
def test_s7_loss_on_all_is_every_position(chat, example):
    for one, two in zip(renderer(chat, "all").rows(example), renderer(chat).rows(example), strict=True):
        assert one.ids == two.ids
        assert all(one.trained)
        assert not all(two.trained)


def merging_tokenizer():
    """Words of letters, with one merge: "ab"."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    letters = {token: i for i, token in enumerate(["<|end|>", "a", "b", " ", ":", "\n", *"tUserBo", "ab"])}
    core = Tokenizer(models.BPE(vocab=letters, merges=[("a", "b")]))
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    )
    return tokenizer


def test_s8_boundary_no_merge():
    tokenizer = merging_tokenizer()
    assert tokenizer.tokenize("ab") == ["ab"]
    made = Renderer(tokenizer, "causal")
    turns = (Turn("user", "a"),)
    [row] = made.rows(Reply("1", turns, ("b",)))
    assert tokenizer.convert_ids_to_tokens(made.prompt_ids(turns)) == ["a"]
    assert tokenizer.convert_ids_to_tokens(row.ids) == ["a", "b", "<|end|>"]
    assert row.trained == (False, True, True)


def metaspace_tokenizer(chat_template: str | None):
    """SentencePiece's way: every text gets a space before it, and spaces are written as `▁`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    core.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "</s>", "<|im_start|>", "<|im_end|>"], show_progress=False
    )
    core.train_from_iterator(tiny.TEXT * 2, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.mark.parametrize("chat", [None, tiny.CHATML], ids=["plain", "chatml"])
def test_s8_no_space_is_put_before_an_answer(chat):
    tokenizer = metaspace_tokenizer(chat)
    made = Renderer(tokenizer, "causal")
    [row] = made.rows(SUMMARY_ROW)
    assert "Ben speaks" in (text := tokenizer.decode(row.ids))
    assert ("Summary: Ben speaks</s>" if chat is None else "assistant\nBen speaks<|im_end|>") in text
    assert "  " not in text
    assert row.ids[: row.answer_start] == made.prompt_ids(SUMMARY_ROW.turns)


def test_s8_no_space_is_put_before_an_answer_of_a_real_tokenizer(shared_models):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_models / "stories260k")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}({% endfor %}"
    made = Renderer(tokenizer, "causal")
    turns = (Turn("user", "Once upon a time"),)
    assert tokenizer.decode(made.prompt_ids(turns), skip_special_tokens=True) == "Once upon a time("
    [row] = made.rows(Reply("1", turns, ("there was",)))
    assert tokenizer.decode(row.ids, skip_special_tokens=True).startswith("Once upon a time(there was")


def test_a_template_that_rewrites_history_gives_a_row_for_each_trained_turn():
    made = renderer("forgetful")
    one, two = made.rows(TALK_ROW)
    text = [made.tokenizer.decode(row.ids) for row in (one, two)]
    assert text[0].endswith("assistant\n<think>\n\n</think>\n\nI am fine.<|im_end|>\n")
    assert text[1].endswith("assistant\n<think>\n\n</think>\n\nOn Monday she comes.<|im_end|>\n")
    assert "assistant\nI am fine.<|im_end|>" in text[1]
    assert [len(answers(row)) for row in (one, two)] == [1, 1]


def test_the_answer_is_found_where_the_template_says_the_same_before_it():
    [row] = renderer("forgetful").rows(Reply("1", (Turn("user", "Say: think"),), ("think",)))
    [found] = answers(row)
    assert renderer("plain").tokenizer.decode(found) == "think<|im_end|>"


def test_a_prompt_ends_where_the_templates_own_ends_before_a_blank():
    """Whoever renders it elsewhere lets the model write the blank: it is learned, and not read."""
    made = renderer(plain_template(None))
    turns = (Turn("user", "Hey."), Turn("assistant", "Yes.", trained=True), Turn("user", "Why?"))
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    theirs = made.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert made.prompt_ids(turns) == tuple(theirs["input_ids"])
    [row] = made.rows(Reply("1", turns, ("It is.",)))
    assert [made.tokenizer.decode(run) for run in answers(row)] == [" Yes.<|end|>", " It is.<|end|>"]
    [plain] = renderer().rows(Reply("1", turns, ("It is.",)))
    assert row.ids[: len(plain.ids)] == plain.ids, "but for the line's end behind the last turn"


def test_a_template_that_strips_is_no_other_conversation():
    blank = Reply("1", (Turn("user", "  Hey "), Turn("assistant", " I am\n", True), Turn("user", "So?")), (" yes ",))
    [row] = renderer("stripping").rows(blank)
    assert [renderer().tokenizer.decode(run) for run in answers(row)] == ["I am<|im_end|>", "yes<|im_end|>"]


def test_a_template_without_an_end_token_gets_the_end_of_text():
    made = renderer("endless")
    assert made.stop_ids == (EOS,)
    first, second = made.rows(TALK_ROW)  # one could not tell where the first answer ended from what the template prints
    assert made.tokenizer.decode(first.ids) == (
        "[system] Be kind.\n[user] Hey, how are you?\n[assistant] I am fine.<|end|>\n"
    )
    assert made.tokenizer.decode(second.ids) == (
        "[system] Be kind.\n[user] Hey, how are you?\n[assistant] I am fine.\n[user] Where is Anna?\n"
        "[assistant] On Monday she comes.<|end|>\n"
    )
    assert [ids[-1] for row in (first, second) for ids in answers(row)] == [EOS, EOS]


def test_generation_stops_at_the_template_end_and_at_the_end_of_text():
    made = renderer("chatml")
    assert made.stop_ids == (EOS, IM_END)
    answer = made.answer_ids(TALK, "I am fine.")
    assert made.decode((*answer, *answer)) == "I am fine."


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (REFUSING, "refuses this conversation: roles must alternate"),
        ("{{ raise_exception('') }}", "refuses this conversation"),
        ("{% for %}", "refuses this conversation"),
        (SILENT, "does not print what the assistant says"),
    ],
)
def test_a_template_that_cannot_be_used_is_told_in_one_line(template, words):
    with pytest.raises(RequestError) as caught:
        renderer(template).prompt_ids(TALK)
    [problem] = caught.value.problems
    assert words in problem.message
    assert "\n" not in problem.message
    assert problem.path == "base.model"


@pytest.mark.parametrize("chat", ["plain", "chatml"])
def test_t5_encoder_and_decoder(chat):
    tokenizer = tiny.tokenizer(CHATS[chat], appends_eos=True)
    made = Renderer(tokenizer, "seq2seq")
    first, second = made.rows(TALK_ROW)
    for row, turns, answer in ((first, TALK[:2], "I am fine."), (second, TALK, "On Monday she comes.")):
        assert row.source == made.prompt_ids(turns) == tuple(tokenizer(made.prompt_text(turns))["input_ids"])
        assert row.source[-1] == EOS
        assert row.ids == made.answer_ids(turns, answer)
        assert row.ids == tuple(tokenizer(answer)["input_ids"])
        assert row.ids.count(EOS) == 1
        assert row.ids[-1] == EOS
        assert all(row.trained)
    if chat == "plain":
        assert made.prompt_text(TALK) == (
            "System: Be kind.\nUser: Hey, how are you?\nBot: I am fine.\nUser: Where is Anna?\nBot:"
        )


def test_a_special_token_spelled_in_the_data_is_text_in_the_plain_format():
    made = Renderer(tiny.tokenizer(), "causal")
    turns = (Turn("prompt", "Write <|end|> twice.\n\nSummary:"),)
    (row,) = made.rows(Reply("a", turns, ("<|end|> it is",)))
    assert row.ids.count(made.stop_ids[0]) == 1
    assert row.ids[-1] == made.stop_ids[0]
    assert made.decode(made.answer_ids(turns, "<|end|> it is")) == "<|end|> it is"


def test_a_special_token_spelled_in_the_data_is_refused_under_a_chat_template():
    made = Renderer(tiny.tokenizer(tiny.CHATML), "causal")
    with pytest.raises(RequestError, match="im_end"):
        made.rows(Reply("a", (Turn("user", "say <|im_end|> now"),), ("no",)))
