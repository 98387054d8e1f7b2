"""Pretrains the embedded base model from a clone alone: tokenizer, weights, checkpoints.

The run is planned in minutes, not in steps: the learning rate follows the share of the time that has passed, so the
same command ends well on a slow laptop and on a fast one. A killed run, started again with the same command, goes
on from its last checkpoint. `card.py` turns a checkpoint into the folder `base/`.

    python recipes/embedded/pretrain.py --minutes 90
"""

import argparse
import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as group
from corpus import documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "pretrain"
END, PAD = "<|end|>", "<|pad|>"
VOCABULARY, CONTEXT = 2048, 512
SEED, ROW, ROWS = 0, 384, 8
EARLY_DOCUMENTS = 80_000
PEAK_RATE, LAST_SHARE, WARM_SHARE, DECAY = 2e-3, 0.03, 0.015, 0.1
SAVE_SECONDS = 240


def train_tokenizer(documents_read: int = 12_000) -> PreTrainedTokenizerFast:
    """Returns a byte-level BPE tokenizer that splits numbers into digits, trained on the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END, PAD], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(itertools.islice(documents(SEED + 1), documents_read), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, model_max_length=CONTEXT,
                                   clean_up_tokenization_spaces=False)


def new_model() -> LlamaForCausalLM:
    """Returns a freshly drawn model of the embedded shape."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4, intermediate_size=1024, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=0, pad_token_id=1, attention_bias=False, initializer_range=0.02))


def rows(tokenizer: PreTrainedTokenizerFast, start: int) -> Iterator[tuple[list[int], int]]:
    """Yields rows of ROW tokens and the index of the next document.

    Every row begins with the beginning of a document and what does not fit is dropped, so that whatever a row says
    again was said before in the same row.
    """
    row: list[int] = []
    for index, text in enumerate(documents(SEED, start, EARLY_DOCUMENTS), start):
        row += [*tokenizer(text)["input_ids"], 0]
        if len(row) >= ROW:
            yield row[:ROW], index + 1
            row = []


def rate(share: float) -> float:
    """Returns the learning rate after this share of the planned time: a short warm-up, then half a cosine."""
    if share < WARM_SHARE:
        return PEAK_RATE * max(share, 1e-4) / WARM_SHARE
    fallen = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (share - WARM_SHARE) / (1 - WARM_SHARE)))
    return PEAK_RATE * (1 - (1 - LAST_SHARE) * fallen)


def replace_file(path: Path, value: object) -> None:
    """Writes the value so that a reader finds either the old file or the new one."""
    fresh = path.with_suffix(".fresh")
    torch.save(value, fresh)
    os.replace(fresh, path)


def save(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Writes the resumable checkpoint and the weights alone."""
    replace_file(BUILD / "state.pt", {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state})
    fresh = BUILD / "weights.fresh"
    model.save_pretrained(fresh)
    for file in fresh.iterdir():
        os.replace(file, BUILD / file.name)
    (BUILD / "state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")


def optimizer_of(model: LlamaForCausalLM) -> torch.optim.AdamW:
    """Returns AdamW that lets only matrices decay."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
                             lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)


def start(device: str, minutes: float) -> tuple[LlamaForCausalLM, torch.optim.Optimizer, dict]:
    """Returns model, optimizer and counters: those of the last checkpoint where there is one."""
    model = new_model().to(device)
    optimizer = optimizer_of(model)
    state = {"step": 0, "seconds": 0.0, "documents": 0, "tokens": 0, "minutes": minutes}
    if (BUILD / "state.pt").exists():
        kept = torch.load(BUILD / "state.pt", map_location=device)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        state = kept["state"] | {"minutes": minutes}
    return model, optimizer, state


def average(model: LlamaForCausalLM, numbers: list[float], processes: int) -> list[float]:
    """Averages all gradients, and some numbers beside them, over the processes; returns the numbers."""
    if processes == 1:
        return numbers
    gradients = [weight.grad for weight in model.parameters()]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor(numbers)])
    group.all_reduce(flat)
    flat /= processes
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients] + [len(numbers)]),
                              strict=False):
        gradient.copy_(part.view_as(gradient))
    return flat[-len(numbers):].tolist()


def train(rank: int, processes: int, minutes: float) -> None:
    """Trains until the planned minutes of training have passed, over all starts together.

    Processes of one thread each meet once a step. Threads that meet in every operation do the same work on an idle
    machine, and far less of it on a machine that is shared.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if processes > 1:
        torch.set_num_threads(1)
        group.init_process_group("gloo", init_method=f"file://{BUILD}/meeting", rank=rank, world_size=processes)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUILD)
    model, optimizer, state = start(device, minutes)
    supply = rows(tokenizer, state["documents"])
    began, saved, losses = time.monotonic() - state["seconds"], time.monotonic(), []
    while state["seconds"] < minutes * 60:
        drawn = [next(supply) for _ in range(ROWS)]
        batch = torch.tensor([row for row, _ in drawn[rank::processes]], device=device)
        for part in optimizer.param_groups:
            part["lr"] = rate(state["seconds"] / (minutes * 60))
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model(input_ids=batch).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        mean_loss, seconds = average(model, [loss.item(), time.monotonic() - began], processes)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(mean_loss)
        state |= {"step": state["step"] + 1, "seconds": seconds, "documents": drawn[-1][1],
                  "tokens": state["tokens"] + ROWS * ROW}
        if rank == 0 and state["step"] % 50 == 0:
            print(f"step {state['step']}  loss {sum(losses[-50:]) / 50:.3f}  minutes {seconds / 60:.1f}  "
                  f"tokens {state['tokens'] / 1e6:.2f} M  tokens/s {state['tokens'] / seconds:.0f}", flush=True)
        if rank == 0 and time.monotonic() - saved > SAVE_SECONDS:
            save(model, optimizer, state)
            saved = time.monotonic()
    if rank == 0:
        save(model, optimizer, state)


def main() -> None:
    """Reads the options, trains the tokenizer where there is none yet, and starts the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90.0, help="planned minutes of training, all starts together")
    parser.add_argument("--processes", type=int, default=1, help="processes of one thread each; 1 uses every thread")
    options = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "meeting").unlink(missing_ok=True)
    if not (BUILD / "tokenizer.json").exists():
        train_tokenizer().save_pretrained(BUILD)
    if options.processes == 1:
        train(0, 1, options.minutes)
    else:
        torch.multiprocessing.spawn(train, (options.processes, options.minutes), nprocs=options.processes)


if __name__ == "__main__":
    main()
