"""Everything that needs a CUDA device, in one run: the GPU tests, the quickstart, and a large base's speed and memory.

    python benchmarks/cuda.py [--layers 32]

Writes benchmarks/results/cuda.json with the device's name and library versions. The large base has the shape of
Llama-3.1-8B and random weights, made here: speed and memory do not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import inlay
from inlay.tuner.recipe import Recipe

HERE = Path(__file__).resolve().parent
METHODS = ("lora", "prefix", "bottleneck")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32, help="of the large base")
    layers = parser.parse_args().layers
    if not torch.cuda.is_available():
        sys.exit("error: no CUDA device here")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(HERE.parent / "tests" / "gpu")],
        capture_output=True,
        text=True,
        check=False,
    )
    print(tests.stdout[-2000:])
    with tempfile.TemporaryDirectory() as scratch:
        quickstart = record(inlay.run("quickstart", output=Path(scratch) / "quickstart"))
        base = write_base(Path(scratch) / "base", layers)
        rows = write_rows(Path(scratch))
        large = [record(inlay.run(large_recipe(base, rows, Path(scratch), method))) for method in METHODS]
    result = {
        "device": torch.cuda.get_device_name(0),
        "gpu_tests": {"exit_code": tests.returncode, "last_line": (tests.stdout.splitlines() or [""])[-1]},
        "quickstart": quickstart,
        "large_base": large,
    }
    out = HERE / "results" / "cuda.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for run in large:
        speed, peak = run["train"]["tokens_per_second"], run["train"]["peak_bytes"] / 1e9
        print(f"{run['adapter']['method']:<12}{speed:>10,.0f} tokens/s{peak:>8.1f} GB peak")
    print(out)
    sys.exit(tests.returncode)


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def write_base(folder: Path, layers: int) -> Path:
    """A model of Llama-3.1-8B's shape with random bf16 weights, and the embedded base's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from inlay.tuner.model_files import locate

    tokenizer = AutoTokenizer.from_pretrained(locate("embedded").folder)
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        eos_token_id=tokenizer.eos_token_id,
        dtype=torch.bfloat16,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(folder: Path) -> Path:
    """Documents of about 600 tokens, made of the embedded ones."""
    from inlay.tuner.model_files import locate

    data = locate("embedded").folder.parent / "data" / "summarization-train.jsonl"
    documents = [json.loads(line) for line in data.open(encoding="utf-8")]
    path = folder / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for i in range(0, len(documents) - 4, 4):
            text = "\n\n".join(row["document"] for row in documents[i : i + 4])
            file.write(json.dumps({"document": text, "summary": documents[i]["summary"]}) + "\n")
    return path


def large_recipe(base: Path, rows: Path, scratch: Path, method: str) -> Recipe:
    """The recipe of 20 steps of 8 rows on the large base."""
    recipe = scratch / f"large-{method}.yaml"
    recipe.write_text(
        f"name: large-{method}\nbase: {{model: base}}\nadapter: {{method: {method}}}\n"
        "task: {type: summarization, data: {train: rows.jsonl, test: rows.jsonl, max_rows: {test: 16}}}\n"
        "train: {max_steps: 20, micro_batch_size: 8, max_length: 1024}\n"
        "eval: {metrics: [perplexity, rouge], decoding: {max_new_tokens: 16}}\n",
        encoding="utf-8",
    )
    return inlay.load_recipe(recipe, [f"base.model={base}", f"task.data.train={rows}", f"task.data.test={rows}"])


if __name__ == "__main__":
    main()
