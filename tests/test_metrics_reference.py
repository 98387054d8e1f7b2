"""Every metric against a reference that we did not write, and against one case worked out by hand."""

from __future__ import annotations

import csv
import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sklearn.metrics import f1_score

from inlay.eval import MeasurementError, Record
from inlay.eval.metrics import as_evaluate, find, gather
from inlay.eval.metrics.rouge import UnicodeTokenizer

OUTPUTS = [
    "The cat sat on the mat.",
    "",
    "It's 5.5 % of AT&amp;T's revenue, isn't it?",
    "no overlap here whatsoever",
    "the dog",
    'He said: "I will come home tomorrow evening," and left.',
    "A  b c  d e f g",
]
REFERENCES = [
    ["The cat sat on a mat.", "A cat was sitting on the mat."],
    ["Something was expected.", "Anything at all."],
    ["It is 5.5 % of AT&T's revenue, is it not?", "That makes 5.5 % of the revenue of AT&T."],
    ["completely different words", "quite another sentence"],
    ["the dog", "The dog barks at the old tree"],
    ['He said, "I come home tomorrow", and left the room.', "He left and said that he would come tomorrow evening."],
    ["a b c d e f g", "A b c d x f g"],
]
CHINESE = [
    ("今天天气很好,我们去公园散步。", "今天天气不错，我们一起去公园散步吧。"),
    ("他买了3本书", "他昨天买了3本书"),
]
ONE_EACH = [[texts[0]] for texts in REFERENCES]
BY_HAND = {
    # 1-grams 5/6 (the second `the` is clipped), 2-grams 3/5, 3-grams 2/4, 4-grams 1/3, lengths 6 and 6: (1/12)^(1/4)
    "bleu": (
        {"predictions": ["the cat sat on the mat"], "references": [["the cat sat on a mat"]]},
        [100 * (1 / 12) ** 0.25],
    ),
    # 1-grams: 1 of 2 on both sides; 2-grams: 0 of 1; longer ones do not exist: P = R = (1/2 + 0) / 2
    "chrf": ({"predictions": ["ab"], "references": [["ac"]]}, [25]),
    # 1-grams: 2 of 3 and 2 of 4, F1 = 2 * 2 / (3 + 4); no pair in common; longest common sequence: a c
    "rouge": ({"predictions": ["a b c"], "references": [["a c d e"]]}, [400 / 7, 0, 400 / 7, 400 / 7]),
    # (ln 4 + ln 2) / (1 + 2) = ln 2; the mean of the examples' own perplexities would be (4 + sqrt 2) / 2
    "perplexity": ({"nll_nats": [math.log(4), math.log(2)], "tokens": [1, 2]}, [2]),
    # (3 + 1) bits over (2 + 2) bytes
    "bits_per_byte": ({"nll_nats": [3 * math.log(2), math.log(2)], "reference_bytes": [2, 2]}, [1]),
    "accuracy": ({"predictions": [0, 1, 1, 2], "references": [0, 1, 2, 2]}, [75]),
    # a: tp 1, fn 1: 2/3; b: tp 1, fp 2: 1/2; c: fn 1: 0; d is neither expected nor chosen and does not count
    "f1": (
        {"predictions": [0, 1, 1, 1], "references": [0, 0, 1, 2], "labels": [["a", "b", "c", "d"]] * 4},
        [100 * (2 / 3 + 1 / 2 + 0) / 3],
    ),
    "empty": ({"predictions": ["", " \n", "x", "y"]}, [50]),
    "unfinished": ({"finished": [True, False, True, True]}, [25]),
}


def text_record(prediction: str, *references: str) -> Record:
    return Record("x", references, prediction, True, 1.0, 1, 1)


def command_line(folder, outputs: list[str], references: list[list[str]], tokenizer: str) -> list[dict]:
    """What sacrebleu's own command line prints for BLEU and chrF."""
    streams = {"outputs": outputs} | {f"ref{i}": list(texts) for i, texts in enumerate(zip(*references, strict=True))}
    for name, lines in streams.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = [str(folder / name) for name in streams if name != "outputs"]
    command = [sys.executable, "-m", "sacrebleu", *files, "-i", str(folder / "outputs"), "-m", "bleu", "chrf"]
    done = subprocess.run(
        [*command, "-w", "12", "--tokenize", tokenizer, "--force"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", BY_HAND)
def test_case_worked_out_by_hand(name):
    columns, expected = BY_HAND[name]
    assert list(as_evaluate(find(name)("en")).compute(**columns).values()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("language", "tokenizer", "outputs", "references"),
    [
        ("en", "13a", OUTPUTS, ONE_EACH),
        ("en", "13a", OUTPUTS, REFERENCES),
        ("zh-CN", "zh", [output for output, _ in CHINESE], [[reference] for _, reference in CHINESE]),
        ("th", "char", ["วันนี้อากาศดีมาก"], [["วันนี้อากาศไม่ดี"]]),
    ],
    ids=["one reference", "two references", "zh", "char"],
)
def test_s17_bleu_and_chrf_equal_the_sacrebleu_command_line(tmp_path, language, tokenizer, outputs, references):
    printed = command_line(tmp_path, outputs, references, tokenizer)
    for name, reported in zip(("bleu", "chrf"), printed, strict=True):
        metric = find(name)(language)
        value = as_evaluate(metric).compute(predictions=outputs, references=references)[name]
        assert value == pytest.approx(reported["score"], abs=1e-9)
        assert metric.signature(len(references[0])) == reported["signature"]


def test_s17_bleu_has_signature():
    """Tokenizers that give other numbers have other signatures, so such rows are never ranked together."""
    signature = {language: find("bleu")(language).signature() for language in ("en", "de", "zh", "th", "ja", "ko")}
    assert signature["en"] == signature["de"] != signature["zh"]
    assert "|tok:zh|" in signature["zh"]
    assert "|tok:char|" in signature["th"]
    assert ("|tok:ja-mecab-" if find_spec("MeCab") else "|tok:char|") in signature["ja"]
    assert ("|tok:ko-mecab-" if find_spec("mecab_ko") else "|tok:char|") in signature["ko"]
    assert sacrebleu.__version__ in signature["en"]
    upper = as_evaluate(find("bleu")("en")).compute(predictions=["THE CAT SAT DOWN"], references=[["the cat sat down"]])
    assert upper["bleu"] == 0
    assert "case:mixed" in signature["en"]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_corpus_scores_equal_sacrebleu_where_orders_have_no_match(name):
    """Random tiny corpora: no 4-gram at all, no match in one order or in several, empty outputs, unequal references."""
    metric, draw = find(name)("en"), random.Random(0)
    theirs = sacrebleu.BLEU(force=True) if name == "bleu" else sacrebleu.CHRF()
    unmatched = 0
    for _ in range(300):
        texts = [[" ".join(draw.choices("abcd", k=draw.randint(0, 6))) for _ in range(3)] for _ in range(2)]
        outputs = [first for first, *_ in texts]
        # the second example may lack the second reference: sacrebleu wants None there
        lacks = draw.random() < 0.3
        streams = [[second for _, second, _ in texts], [texts[0][2], None if lacks else texts[1][2]]]
        records = [text_record(texts[0][0], *texts[0][1:]), text_record(texts[1][0], *texts[1][1 : 2 if lacks else 3])]
        expected = theirs.corpus_score(outputs, streams)
        unmatched += name == "bleu" and 0 in expected.counts and expected.score > 0
        value = metric.value(gather(metric, records).sum(axis=0), 2)
        assert value.tolist() == pytest.approx([expected.score], abs=1e-9)
        assert metric.signature(None if lacks else 2) == str(theirs.get_signature())
    assert name == "chrf" or unmatched > 30, "the corpora do not exercise smoothing"


def test_value_of_an_example_equals_sacrebleu_sentence_scores():
    records = [text_record(output, *texts) for output, texts in zip(OUTPUTS, REFERENCES, strict=True)]
    for name, theirs in (("bleu", sacrebleu.BLEU(effective_order=True)), ("chrf", sacrebleu.CHRF())):
        metric = find(name)("en")
        expected = [
            theirs.sentence_score(output, texts).score for output, texts in zip(OUTPUTS, REFERENCES, strict=True)
        ]
        assert metric.example_values(gather(metric, records))[:, 0] == pytest.approx(expected, abs=1e-9)


def test_s18_bleu_rejects_unequal():
    """sacrebleu itself answers 100.0 to one output against two references of other examples."""
    module = as_evaluate(find("bleu")("en"))
    assert sacrebleu.corpus_bleu(["a b c d"], [["a b c d", "e f g h"]]).score == pytest.approx(100)
    with pytest.raises(MeasurementError, match="1 predictions, 2 references"):
        module.compute(predictions=["a b c d"], references=[["a b c d"], ["e f g h"]])


def test_s18_transposed_references_are_refused():
    """One list per reference, as sacrebleu wants them, is not one list per example."""
    outputs, transposed = OUTPUTS[:3], [list(texts) for texts in zip(*REFERENCES[:3], strict=True)]
    for name in ("bleu", "chrf", "rouge"):
        with pytest.raises(MeasurementError, match="3 predictions, 2 references"):
            as_evaluate(find(name)("en")).compute(predictions=outputs, references=transposed)


def test_s18_a_string_is_no_list_of_references():
    module = as_evaluate(find("bleu")("en"))
    with pytest.raises(MeasurementError, match="expected a list of strings"):
        module.compute(predictions=["a b c d"], references=["a b c d"])
    with pytest.raises(MeasurementError, match="expected a list of strings"):
        module.add(prediction="a b c d", reference="a b c d")
    with pytest.raises(MeasurementError, match="no reference in 1 of 2 examples"):
        module.compute(predictions=["a", "b"], references=[["a"], []])


def test_s19_empty_outputs_counted():
    """Corpus BLEU hides an empty output in its lengths, a mean of sentence scores hides the lengths: both are told."""
    records = [text_record(output, *texts) for output, texts in zip(OUTPUTS, ONE_EACH, strict=True)]
    bleu = find("bleu")("en")
    statistics = gather(bleu, records)
    corpus = bleu.value(statistics.sum(axis=0), len(records))[0]
    assert corpus == pytest.approx(sacrebleu.corpus_bleu(OUTPUTS, [[texts[0] for texts in ONE_EACH]]).score, abs=1e-9)
    assert abs(corpus - bleu.example_values(statistics).mean()) > 1
    share = as_evaluate(find("empty")("en")).compute(predictions=OUTPUTS)["empty"]
    assert share == pytest.approx(100 / len(OUTPUTS))


def test_s20_rouge_equals_the_rouge_score_command_line(tmp_path):
    outputs = ["one cat sat here\nThe dog ran.", "The dog ran.\none cat sat here", "", "Flight A380 of the 5 o'clock"]
    references = [
        "The dog ran\none cat sat here",
        "one cat sat\nthe dog ran home",
        "words",
        "flight a-380, five o'clock",
    ]
    for name, texts in (("outputs", outputs), ("references", references)):
        (tmp_path / name).write_text("@@".join(texts), encoding="utf-8")
    types = "rouge1,rouge2,rougeL,rougeLsum"
    subprocess.run(
        [
            *(sys.executable, "-m", "rouge_score.rouge", f"--rouge_types={types}", "--delimiter=@@", "--noaggregate"),
            *(f"--target_filepattern={tmp_path / 'references'}", f"--prediction_filepattern={tmp_path / 'outputs'}"),
            f"--output_filename={tmp_path / 'scores.csv'}",
        ],
        capture_output=True,
        check=True,
    )
    with open(tmp_path / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    printed = [[100 * float(row[f"{name}-F"]) for name in types.split(",")] for row in rows]
    rouge = find("rouge")("en")
    ours = rouge.example_values(
        gather(rouge, [text_record(*pair) for pair in zip(outputs, references, strict=True)])
    ).tolist()
    assert len(printed) == len(outputs)
    for mine, theirs in zip(ours, printed, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)  # the command line prints six digits
    assert ours[0][3] > ours[0][2], "lines in another order cost ROUGE-L, not ROUGE-Lsum"


def test_s20_rouge_with_several_references_equals_rouge_score():
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=False)
    expected = [scorer.score_multi(texts, output) for output, texts in zip(OUTPUTS, REFERENCES, strict=True)]
    ours = as_evaluate(find("rouge")("de")).compute(predictions=OUTPUTS, references=REFERENCES)
    for name, value in ours.items():
        assert value == pytest.approx(100 * np.mean([scores[name].fmeasure for scores in expected]), rel=1e-12)


def test_s20_rouge_variant_is_in_the_signature():
    latin, marked = ("latin", "nl"), ("unicode", "nl+marks")
    for language, kind in (("en", latin), ("fr", latin), ("zh", marked), ("ja", marked), ("ru", ("unicode", "nl"))):
        signature = find("rouge")(language).signature(2)
        assert f"nrefs:2|refs:max|tok:{kind[0]}|stem:no|split:{kind[1]}|" in signature


def test_sentences_of_chinese_in_another_order_cost_rouge_l_and_not_rouge_lsum():
    one, other = "他说：“今天天气很好。”我们去公园吧！", "我们去公园吧！他说：“今天天气很好。”"
    in_lines = "我们去公园吧！\n他说：“今天天气很好。”"
    rouge = find("rouge")("zh")
    scores = rouge.example_values(gather(rouge, [text_record(one, other), text_record(one, in_lines)]))
    assert scores[0][3] == pytest.approx(100)
    assert scores[0][2] < 90
    assert scores[0].tolist() == scores[1].tolist()


def test_s21_unicode_tokenizer_equals_rouge_score_on_ascii():
    theirs, ours = DefaultTokenizer(use_stemmer=False), UnicodeTokenizer()
    for text in [*OUTPUTS, "snake_case & 3.14-a", "\tTabs\nand lines "]:
        assert ours.tokenize(text) == theirs.tokenize(text)


def test_s21_unicode_tokens():
    tokens = UnicodeTokenizer().tokenize
    assert tokens("Привет, МИР! 2 раза") == ["привет", "мир", "2", "раза"]
    assert tokens("我用GPT4写诗。") == ["我", "用", "gpt4", "写", "诗"]
    assert tokens("हिन्दी में") == ["हिन्दी", "में"]
    assert tokens("ดีมาก") == ["ดี", "ม", "า", "ก"]
    assert tokens("cafe\u0301") == tokens("caf\u00e9") == ["caf\u00e9"]


def test_s14_ppl_batch_invariant():
    """Sums over batches of any size give one perplexity; the mean of batch means, which trainers report, does not."""
    draw = random.Random(0)
    tokens = [draw.randint(1, 40) for _ in range(32)]
    nll = [count * draw.uniform(5, 9) for count in tokens]
    truth = math.exp(math.fsum(nll) / sum(tokens))
    metric = find("perplexity")("en")
    records = [
        replace(text_record("", ""), nll_nats=loss, tokens=count) for loss, count in zip(nll, tokens, strict=True)
    ]
    naive = set()
    for size in (1, 2, 5, 8, 32):
        batches = [records[start : start + size] for start in range(0, 32, size)]
        sums = sum(gather(metric, batch).sum(axis=0) for batch in batches)
        assert metric.value(sums, 32)[0] == pytest.approx(truth, rel=1e-12)
        means = [sum(r.nll_nats for r in batch) / sum(r.tokens for r in batch) for batch in batches]
        naive.add(round(math.exp(sum(means) / len(means)), 3))
    assert len(naive) == 5


def test_s16_bits_per_byte_is_unchanged_by_another_tokenizer():
    """A toy vocabulary twice: letters, and letter pairs with the product of their letters' probabilities."""
    probability = {"a": 0.5, "b": 0.3, "c": 0.2}
    text = "abacabcaab"
    letters = [-math.log(probability[letter]) for letter in text]
    pairs = [letters[i] + letters[i + 1] for i in range(0, len(text), 2)]
    columns = [{"nll_nats": [sum(nll)], "tokens": [len(nll)]} for nll in (letters, pairs)]
    bits = [
        as_evaluate(find("bits_per_byte")("en")).compute(nll_nats=column["nll_nats"], reference_bytes=[len(text)])
        for column in columns
    ]
    assert bits[0]["bits_per_byte"] == pytest.approx(bits[1]["bits_per_byte"], rel=1e-12)
    assert bits[0]["bits_per_byte"] == pytest.approx(sum(-math.log2(probability[letter]) for letter in text) / 10)
    perplexities = [as_evaluate(find("perplexity")("en")).compute(**column)["perplexity"] for column in columns]
    assert perplexities[1] == pytest.approx(perplexities[0] ** 2)


def test_bits_per_byte_of_an_answer_without_text_is_finite():
    metric = find("bits_per_byte")("en")
    statistics = gather(metric, [replace(text_record("", ""), nll_nats=math.log(8), reference_bytes=0)])
    assert metric.example_values(statistics)[0, 0] == pytest.approx(3)


@pytest.mark.parametrize("present", [(0, 1, 2, 3), (1, 3), (2,)])
def test_f1_equals_scikit_learn(present):
    draw = random.Random(len(present))
    gold, chosen = (draw.choices(present, k=60) for _ in range(2))
    ours = as_evaluate(find("f1")("en")).compute(predictions=chosen, references=gold, labels=[list("abcd")] * 60)["f1"]
    assert ours == pytest.approx(100 * f1_score(gold, chosen, average="macro"), rel=1e-12)


def test_f1_needs_one_set_of_labels():
    record = replace(text_record("a", "a"), labels=("a", "b"), gold=0, chosen=0)
    with pytest.raises(MeasurementError, match="labels differ"):
        gather(find("f1")("en"), [record, replace(record, labels=("a", "b", "c"))])
    with pytest.raises(MeasurementError, match="a choice outside the labels in 1 of 1 examples"):
        gather(find("f1")("en"), [replace(record, chosen=2)])
    with pytest.raises(MeasurementError, match="no choice among labels"):
        gather(find("accuracy")("en"), [text_record("a", "a")])


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_s41_scores_do_not_depend_on_label_order(name):
    draw, metric = random.Random(3), find(name)("en")
    answers = [(draw.randrange(3), draw.randrange(3)) for _ in range(30)]
    values = []
    for order in ((0, 1, 2), (2, 0, 1)):
        labels = tuple("abc"[index] for index in order)
        records = [
            replace(text_record("", ""), labels=labels, gold=order.index(gold), chosen=order.index(chosen))
            for gold, chosen in answers
        ]
        values.append(metric.value(gather(metric, records).sum(axis=0), 30)[0])
    assert values[0] == pytest.approx(values[1], rel=1e-12)
