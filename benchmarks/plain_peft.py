"""One adapter method trained and measured as a script of its own does it, with peft and Trainer and nothing of ours.

    python benchmarks/plain_peft.py METHOD --base DIR --train FILE --test FILE --steps N --rows N [--tuned]

What `benchmarks/compare_speed.py` times inlay's comparison against. The base is loaded in 4-bit, the prompt is masked
in the loss, rows are padded to the longest of their batch, generation is greedy. All else is as PEFT's guide to
quantized training and the defaults of Trainer have it: the model is prepared with `prepare_model_for_kbit_training`,
which turns activation checkpointing on, and measured in batches of 8. With --tuned it is as somebody would have it who
knows this model and this machine: no checkpointing, batches of 32, and no repacking of 4-bit weights in evaluation.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import bitsandbytes.nn.modules
import torch
from peft import (
    IA3Config,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PrefixTuningConfig,
    get_peft_model,
    prepare_model_for_kbit_training,
)
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

CONFIGS = {
    "lora": lambda: LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"),
    "dora": lambda: LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear", use_dora=True
    ),
    "miss": lambda: MissConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear"),
    "oft": lambda: OFTConfig(task_type="CAUSAL_LM", target_modules="all-linear"),
    "ia3": lambda: IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "prefix": lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=16),
}
PROMPT = "{document}\n\nSummary:"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=list(CONFIGS))
    for name in ("base", "train", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--tuned", action="store_true")
    asked = parser.parse_args()
    if asked.tuned:
        bitsandbytes.nn.modules.has_avx512bf16 = lambda: False
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(asked.base, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        asked.base, quantization_config=four, dtype=torch.float32, device_map={"": "cpu"}
    )
    if not asked.tuned:  # PEFT refuses checkpointing with a prefix
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=asked.method != "prefix")
    model = get_peft_model(model, CONFIGS[asked.method]())
    rows = [json.loads(line) for line in asked.train.read_text().splitlines()]
    arguments = TrainingArguments(
        output_dir="plain", max_steps=asked.steps, per_device_train_batch_size=8, learning_rate=5e-3, use_cpu=True,
        lr_scheduler_type="cosine", save_strategy="no", report_to=[], disable_tqdm=True, label_names=["labels"],
        **({"per_device_eval_batch_size": 32} if asked.tuned else {}),
    )  # fmt: skip
    collator = DataCollatorForSeq2Seq(tokenizer)
    Trainer(model, arguments, collator, [encode(tokenizer, row) for row in rows]).train()
    test = [json.loads(line) for line in asked.test.read_text().splitlines()][: asked.rows]
    print(json.dumps(measure(model.eval(), tokenizer, collator, test, arguments.per_device_eval_batch_size)))


def encode(tokenizer, row: dict[str, str]) -> dict[str, list[int]]:
    """Ids and labels of a row, its prompt masked."""
    prompt = tokenizer(PROMPT.format(**row))["input_ids"]
    answer = [*tokenizer(" " + row["summary"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ids = prompt + answer
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(prompt) + answer}


@torch.no_grad()
def measure(model, tokenizer, collator, test: list[dict[str, str]], size: int) -> dict[str, float]:
    """ROUGE-L, BLEU and perplexity of the answers."""
    written, nll, tokens = [], 0.0, 0
    for start in range(0, len(test), size):
        some = test[start : start + size]
        prompts = tokenizer([PROMPT.format(**row) for row in some], return_tensors="pt", padding=True)
        prompts.pop("token_type_ids", None)
        output = model.generate(
            **prompts, max_new_tokens=64, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        written += tokenizer.batch_decode(output[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
        batch = collator([encode(tokenizer, row) for row in some])
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        labels = batch["labels"][:, 1:]
        wanted = labels != -100
        nll += float(torch.nn.functional.cross_entropy(logits[:, :-1][wanted], labels[wanted], reduction="sum"))
        tokens += int(wanted.sum())
    references = [row["summary"] for row in test]
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score(a, b)["rougeL"].fmeasure for a, b in zip(references, written, strict=True)]
    bleu = corpus_bleu([text.strip() for text in written], [references]).score
    return {"rougeL": 100 * sum(rouge) / len(rouge), "bleu": bleu, "perplexity": math.exp(nll / tokens)}


if __name__ == "__main__":
    main()
