"""What holds for every metric of the folder: a new one is picked up here by lying there."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inlay.eval import MeasurementError, Record
from inlay.eval.language import detect_language
from inlay.eval.metrics import Additive, Metric, as_evaluate, find, gather, names, require_scorable, values

HEAVY = ("torch", "peft", "transformers", "datasets", "evaluate", "numpy", "sacrebleu", "rouge_score", "nltk")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "small", "dog", "run", "home"]
LABELS = ("good", "bad", "neither")
# One sentence for each of fourteen scripts, by language.
SENTENCES = {
    "en": "The quick brown fox jumps over the lazy dog.",
    "zh": "今天天气很好，我们一起去公园散步。",
    "ja": "今日は天気がいいので、公園を散歩しました。",
    "ko": "오늘은 날씨가 좋아서 우리는 함께 공원에서 산책했습니다.",
    "ru": "Сегодня хорошая погода, и мы вместе гуляем в парке.",
    "el": "Σήμερα ο καιρός είναι καλός και πάμε μαζί στο πάρκο.",
    "ar": "الطقس جميل اليوم ونحن نتمشى معا في الحديقة.",
    "he": "מזג האוויר היום נעים ואנחנו מטיילים יחד בפארק.",
    "hi": "आज मौसम बहुत अच्छा है और हम साथ में पार्क जा रहे हैं।",
    "bn": "আজ আবহাওয়া খুব ভালো এবং আমরা একসাথে পার্কে যাচ্ছি।",
    "ta": "இன்று வானிலை நன்றாக உள்ளது, நாங்கள் பூங்காவிற்குச் செல்கிறோம்.",
    "th": "วันนี้อากาศดีมากเราไปเดินเล่นในสวนด้วยกัน",
    "my": "ဒီနေ့ရာသီဥတုသာယာပြီးကျွန်တော်တို့ပန်းခြံသွားကြသည်",
    "ka": "დღეს კარგი ამინდია და ერთად ვსეირნობთ პარკში.",
}
TEXT_METRICS = [name for name in names() if find(name).needs == "text" and find(name).higher_is_better]


def make_records(n: int, seed: int = 0) -> list[Record]:
    """Records that hold what any metric may need, with one reference or two."""
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(3, 12)))

    return [
        Record(
            id=f"r{number}",
            references=tuple(text() for _ in range(draw.randint(1, 2))),
            prediction=text() if draw.random() < 0.9 else " ",
            finished=draw.random() < 0.8,
            nll_nats=draw.uniform(1, 40),
            tokens=draw.randint(1, 20),
            reference_bytes=draw.randint(1, 60),
            labels=LABELS,
            label_nll_nats=(1.0, 2.0, 3.0),
            label_tokens=(1, 1, 2),
            gold=draw.randrange(3),
            chosen=draw.randrange(3),
        )
        for number in range(n)
    ]


def columns_of(metric: Metric, records: list[Record]) -> dict[str, list]:
    """The columns that `as_evaluate(metric)` takes, from records."""
    named = {"prediction": "predictions", "chosen": "predictions", "gold": "references"}
    plain = [
        [list(value) if isinstance(value := getattr(record, field), tuple) else value for record in records]
        for field in metric.fields
    ]
    return {named.get(field, field): column for field, column in zip(metric.fields, plain, strict=True)}


@pytest.fixture(params=names())
def metric(request: pytest.FixtureRequest) -> Metric:
    return find(request.param)("en")


@pytest.fixture(params=[name for name in names() if issubclass(find(name), Additive)])
def additive(request: pytest.FixtureRequest) -> Additive:
    return find(request.param)("en")


@pytest.mark.parametrize("name", names())
def test_module_imports_nothing_heavy(name):
    listed = f"import sys, inlay.eval.metrics.{name}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_folder_is_the_registry():
    with pytest.raises(LookupError, match="unknown metric `rogue`; did you mean `rouge`"):
        find("rogue")
    scores = [score for name in names() for score in find(name).scores]
    assert len(scores) == len(set(scores)), "two metrics yield a score of the same name"


def test_signature_is_one_line_and_carries_versions(metric):
    signature = metric.signature()
    assert signature
    assert "\n" not in signature
    assert metric.signature(2) == metric.signature(2)
    source = Path(sys.modules[type(metric).__module__].__file__).read_text(encoding="utf-8")
    if "from sacrebleu" in source or "from rouge_score" in source:
        assert "version:" in signature
        assert len({metric.signature(1), metric.signature(2), metric.signature(None)}) == 3


def test_a_perfect_record_scores_best(metric):
    others = make_records(30)
    sentence = "the small cat sat on the mat"
    perfect = replace(
        others[0], references=(sentence,), prediction=sentence, finished=True, nll_nats=0.0, gold=1, chosen=1
    )
    best = np.array(values(metric, [perfect]))
    rest = np.array([values(metric, [other]) for other in others])
    if metric.higher_is_better is None:
        return
    if metric.higher_is_better:
        assert best == pytest.approx(100)
        assert (rest <= best + 1e-9).all()
    else:
        assert (rest >= best - 1e-9).all()
    assert (rest != best).any()


def test_weighted_statistics_equal_repeated_examples(additive):
    """What resampling rests on: weighting an example by 2 is the same as having it twice, in any order."""
    records = make_records(12)
    weights = np.array([0, 1, 2, 3] * 3)
    repeated = [record for record, weight in zip(records, weights, strict=True) for _ in range(weight)]
    random.Random(1).shuffle(repeated)
    weighted = additive.value(weights @ gather(additive, records), int(weights.sum()))
    through_evaluate = as_evaluate(additive).compute(**columns_of(additive, repeated))
    assert list(through_evaluate) == list(additive.scores)
    assert list(through_evaluate.values()) == pytest.approx(weighted.tolist(), rel=1e-12)


def test_vectorised_value_equals_a_loop(additive):
    statistics = gather(additive, make_records(40))
    sums = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=(3, 5)) @ statistics
    together = additive.value(sums, 40)
    assert together.shape == (3, 5, len(additive.scores))
    for place in np.ndindex(3, 5):
        np.testing.assert_allclose(together[place], additive.value(sums[place], 40), rtol=1e-14)


def test_each_example_has_a_value(additive):
    statistics = gather(additive, make_records(8))
    each = additive.example_values(statistics)
    assert each.shape == (8, len(additive.scores))
    assert np.isfinite(each).all()


def test_no_examples_is_an_error(metric):
    with pytest.raises(MeasurementError, match="no examples"):
        require_scorable(metric, [])


@pytest.mark.parametrize("name", [name for name in names() if len(find(name).fields) > 1])
def test_s18_unequal_columns_are_refused(name):
    metric = find(name)("en")
    columns = columns_of(metric, make_records(4))
    last = list(columns)[-1]
    with pytest.raises(MeasurementError, match="expected one entry of each"):
        as_evaluate(metric).compute(**columns | {last: columns[last][:-1]})


def test_evaluate_module_leaves_no_cache():
    module = as_evaluate(find("bleu")("en"))
    module.compute(predictions=["a"], references=[["a"]])
    folder = Path(module.data_dir)
    assert folder.is_dir()
    del module
    gc.collect()  # an evaluate.Metric holds itself
    assert not folder.exists()


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("name", TEXT_METRICS)
def test_s21_identity_scores_the_maximum(name, language):
    sentence = SENTENCES[language]
    module = as_evaluate(find(name)(language))
    same = module.compute(predictions=[sentence], references=[["...", sentence]])
    assert list(same.values()) == pytest.approx([100.0] * len(same))
    shortened = module.compute(predictions=[sentence[: len(sentence) * 2 // 3]], references=[[sentence]])
    assert all(0 <= value < 100 if find(name).proportion else 0 < value < 100 for value in shortened.values())


@pytest.mark.parametrize("language", SENTENCES)
def test_language_is_told_by_script(language):
    assert detect_language([SENTENCES[language], "", "12 %"]) == language


def test_language_of_mixed_texts():
    assert detect_language([]) == "en"
    assert detect_language(["été, größer, naïve"]) == "en"
    assert detect_language(["用 transformers 库加载模型，然后用 bitsandbytes 量化权重"]) == "zh"
    assert detect_language(["The word for cat is кошка; everything else here is said in English."]) == "en"
    assert detect_language(["门口看见一块写着いらっしゃい的牌子，觉得非常有意思，于是走进去买了许多东西"]) == "zh"
    assert detect_language(["ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ"]) == "und"
