"""GGUF files of merged models: read back by transformers, whose reader shares no code with the writer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf_models
import pytest
import tiny
from gguf_models import byte_level, save, sentencepiece

from inlay.tuner import doctor
from inlay.tuner.export.gguf import refusal, write_gguf
from inlay.tuner.export.gguf_check import TEXTS, check_gguf
from inlay.tuner.export.vocabulary import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED
from inlay.tuner.problems import AnswerNo, RequestError

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
THETA = {"rope_type": "default", "rope_theta": 500000.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
ACCENTS = "cafe\u0301 n\u0303 A\u030a"
STARTING_WITH_SPACE = TEXTS[1]

# name -> shape, style of the tokenizer, changes of the config
MODELS = {
    "llama": ("llama", "gpt-2", {}),
    "llama-tied": ("llama", "smollm", {"tied": True}),
    "llama-wide-heads": ("llama", "smollm", {"head_dim": 32}),
    "llama-theta": ("llama", "gpt-2", {"rope_parameters": THETA}),
    "llama-3": ("llama", "llama-bpe", {"rope_parameters": LLAMA3, "head_dim": 32}),
    "llama-linear": ("llama", "smaug-bpe", {"rope_parameters": LINEAR}),
    "llama-biases": ("llama", "gpt-2", {"attention_bias": True, "mlp_bias": True}),
    "llama-no-groups": ("llama", "gpt-2", {"num_key_value_heads": 4}),
    "qwen2": ("qwen2", "qwen2", {}),
    "qwen2-linear-tied": ("qwen2", "qwen2", {"rope_parameters": LINEAR, "tied": True}),
    "qwen3": ("qwen3", "qwen2", {}),
    "qwen3-wide-heads-tied": ("qwen3", "qwen2", {"head_dim": 32, "tied": True}),
    "gpt2": ("gpt2", "gpt-2", {"tied": True}),
    "gpt2-untied-narrow": ("gpt2", "gpt-2", {"n_inner": 96}),
    "gpt2-more-rows": ("gpt2", "gpt-2", {"tied": True, "vocab_size": 704}),
}
PROMPTS = [list(range(3, 40)), [5] * 70, list(range(100, 180))]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A function name of `MODELS` -> its folder; each is written once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            shape, style, changes = MODELS[name]
            tokens = byte_level(style, chat=tiny.CHATML, bos=style == "llama-bpe", added=("<think>", "</think>"))
            made[name] = save(tmp_path_factory.mktemp(name), shape, tokens, **changes)
        return made[name]

    return make


def fields(file: Path) -> dict[str, object]:
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


def kinds(file: Path) -> dict[str, str]:
    from gguf import GGUFReader

    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}


def loaded(folder: Path):
    from transformers import AutoConfig, AutoTokenizer

    return AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", MODELS)
def test_x10_a_float32_file_is_the_folders_model(name, models, tmp_path):
    written = write_gguf(models(name), tmp_path / "model.gguf", "f32", template=tiny.CHATML)
    found = check_gguf(written.file, models(name), PROMPTS, template=tiny.CHATML)
    assert found.fault() is None
    assert found.largest < 1e-4
    assert (found.tokens, found.top1) == (187, 1.0)
    assert (found.prompts, found.same_replies) == (3, 3)
    assert found.texts == ((ACCENTS,) if MODELS[name][1] == "qwen2" else ())
    assert bool(written.notes) == (MODELS[name][1] == "qwen2")
    assert (found.marks, found.template) == (True, True)
    assert written.bytes == written.file.stat().st_size
    assert set(kinds(written.file).values()) == {"F32"}
    assert ("output.weight" in kinds(written.file)) != MODELS[name][2].get("tied", False)


@pytest.mark.parametrize("name", ["llama-wide-heads", "qwen2", "qwen3", "gpt2"])
def test_smaller_kinds_are_near_and_ordered(name, models, tmp_path):
    """Bounds are of the kinds: 11, 8 and about 7 bits of a weight's value."""
    found = {}
    for kind in ("f32", "f16", "bf16", "q8_0"):
        file = write_gguf(models(name), tmp_path / f"{kind}.gguf", kind, template=None).file
        found[kind] = check_gguf(file, models(name), PROMPTS, template=None, new_tokens=1)
        matrices = {
            stored for tensor, stored in kinds(file).items() if tensor.endswith(("attn_v.weight", "qkv.weight"))
        }
        assert matrices == {kind.upper()}
        small = [
            tensor for tensor in kinds(file) if "norm" in tensor or tensor.endswith(".bias") or "position" in tensor
        ]
        assert small
        assert {kinds(file)[tensor] for tensor in small} == {"F32"}
        assert (tmp_path / f"{kind}.gguf").stat().st_size < {"f32": 2e6, "f16": 1e6, "bf16": 1e6, "q8_0": 6e5}[kind]
    means = [readback.mean for readback in found.values()]
    assert means == sorted(means)
    assert found["f16"].largest < 0.02
    assert found["bf16"].largest < 0.15
    assert found["q8_0"].largest < 0.5
    assert found["q8_0"].fault() is not None


def test_rows_that_blocks_do_not_divide_stay_wider(tmp_path):
    folder = save(tmp_path / "m", "llama", byte_level("gpt-2"), intermediate_size=172)
    written = write_gguf(folder, tmp_path / "m.gguf", "q8_0", template=None)
    assert written.wider == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    assert {kinds(written.file)[name] for name in written.wider} == {"F16"}
    assert check_gguf(written.file, folder, PROMPTS, template=None, new_tokens=1).largest < 0.5


def test_shards_give_the_same_tensors_as_one_file(models, tmp_path):
    tokens = byte_level("gpt-2", chat=tiny.CHATML, added=("<think>", "</think>"))
    folder = save(tmp_path / "m", "llama", tokens, shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    file = write_gguf(folder, tmp_path / "m.gguf", "f32", template=None).file
    assert check_gguf(file, models("llama"), PROMPTS, template=None).largest == 0


def test_gpt2_of_old_checkpoints(models, tmp_path):
    """Names without `transformer.`, masks beside the weights."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(models("gpt2"), tmp_path / "old")
    weights = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 256, 256)
    old["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    file = write_gguf(folder, tmp_path / "m.gguf", "f32", template=tiny.CHATML).file
    assert check_gguf(file, models("gpt2"), PROMPTS, template=tiny.CHATML).fault() is None


@pytest.mark.parametrize("change", ["weights", "theta", "template", "start"])
def test_the_check_finds_another_model(change, models, tmp_path):
    """The folder is changed after the file was written."""
    import shutil

    folder = shutil.copytree(models("llama"), tmp_path / "other")
    file = write_gguf(folder, tmp_path / "m.gguf", "f32", template=tiny.CHATML).file
    if change == "weights":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        rows = weights["model.layers.1.self_attn.k_proj.weight"]
        rows[[0, 1]] = rows[[1, 0]]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    elif change == "theta":
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        told["rope_parameters"]["rope_theta"] = 11000.0
        (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    elif change == "start":
        byte_level("gpt-2", chat=tiny.CHATML, bos=True).save_pretrained(folder)
    reason = {"weights": "logits", "theta": "logits", "template": "template", "start": "token"}[change]
    template = None if change == "template" else tiny.CHATML
    assert reason in str(check_gguf(file, folder, PROMPTS, template=template, new_tokens=1).fault())


@pytest.mark.fresh
def test_the_check_runs_as_a_process_of_its_own(models, tmp_path):
    file = write_gguf(models("gpt2"), tmp_path / "m.gguf", "f32", template=tiny.CHATML).file
    asked = {"file": str(file), "folder": str(models("gpt2")), "prompts": PROMPTS, "template": tiny.CHATML}
    command = [sys.executable, "-m", "inlay.tuner.export.gguf_check"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert (told["tokens"], told["same_replies"], told["template"]) == (187, 3, True)
    assert told["largest"] < 1e-4


@pytest.mark.parametrize("style", ["gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2"])
@pytest.mark.parametrize("bos", [False, True])
def test_the_file_names_the_pretokenizer_and_its_marks(style, bos, tmp_path):
    """Names as llama.cpp reads them. A missing name means another way to cut digits, unnoticed."""
    tokens = byte_level(style, chat=tiny.CHATML, bos=bos, added=("<think>",))
    folder = save(tmp_path / "m", "llama", tokens, vocab_size=len(tokens) + 3)
    told = fields(write_gguf(folder, tmp_path / "m.gguf", "q8_0", template=tiny.CHATML).file)
    assert (told["tokenizer.ggml.model"], told["tokenizer.ggml.pre"]) == ("gpt2", style)
    assert told["tokenizer.ggml.tokens"][: len(tokens)] == tokens.convert_ids_to_tokens(range(len(tokens)))
    types = told["tokenizer.ggml.token_type"]
    assert types == [CONTROL] * 5 + [NORMAL] * (len(tokens) - 6) + [USER_DEFINED] + [UNUSED] * 3
    assert (told["tokenizer.ggml.eos_token_id"], told["tokenizer.ggml.padding_token_id"]) == (0, 1)
    assert told["tokenizer.ggml.eot_token_id"] == gguf_models.SPECIALS.index("<|im_end|>")
    assert told["tokenizer.ggml.add_bos_token"] is bos
    assert told["tokenizer.ggml.add_eos_token"] is False
    assert told.get("tokenizer.ggml.bos_token_id") == (2 if bos else None)
    assert told["tokenizer.chat_template"] == tiny.CHATML


def test_without_a_chat_template_the_file_has_none(tmp_path):
    folder = save(tmp_path / "m", "llama", byte_level("gpt-2"))
    told = fields(write_gguf(folder, tmp_path / "m.gguf", "q8_0", template=None).file)
    assert "tokenizer.chat_template" not in told
    assert "tokenizer.ggml.eot_token_id" not in told


@pytest.mark.parametrize("prefix", ["prepend", "first"])
def test_sentencepiece_is_read_back(prefix, tmp_path):
    """Transformers reads scores back as merges, and its class for them puts a space before a text that has none."""
    tokens = sentencepiece(prefix=prefix)
    folder = save(tmp_path / "m", "llama", tokens)
    written = write_gguf(folder, tmp_path / "m.gguf", "f32", template=None)
    found = check_gguf(written.file, folder, PROMPTS, template=None)
    assert found.fault() is None
    if prefix == "first":
        assert (found.texts, len(written.notes)) == ((), 1)
    else:
        assert (set(found.texts) - {STARTING_WITH_SPACE, "<unk>a <s>a </s>"}, written.notes) == (set(), ())
    told = fields(written.file)
    assert (told["tokenizer.ggml.model"], told["tokenizer.ggml.pre"]) == ("llama", "default")
    assert told["tokenizer.ggml.add_space_prefix"] is True
    assert told["tokenizer.ggml.token_type"].count(BYTE) == 256
    assert "tokenizer.ggml.merges" not in told
    scores = dict(zip(told["tokenizer.ggml.tokens"], told["tokenizer.ggml.scores"], strict=True))
    merges = json.loads(tokens.backend_tokenizer.to_str())["model"]["merges"]
    made = [scores[left + right] for left, right in merges]
    assert made == sorted(made, reverse=True)


def test_the_embedded_base_is_read_back(tmp_path):
    folder = Path(__file__).resolve().parents[1] / "recipes" / "embedded" / "base"
    prompts = [loaded(folder)[1]("User: Hello, how are you?\nBot:")["input_ids"]]
    for kind, limit in (("f32", 0), ("bf16", 0), ("q8_0", 0.5)):  # its weights are bfloat16 already
        written = write_gguf(folder, tmp_path / f"{kind}.gguf", kind, template=None)
        found = check_gguf(written.file, folder, prompts, template=None)
        assert found.largest <= limit
        assert (found.marks, found.template, found.texts) == (True, True, ())
    assert fields(written.file)["tokenizer.ggml.pre"] == "smollm"


def test_a_real_sentencepiece_model_is_read_back(shared_models, tmp_path):
    folder = shared_models / "stories260k"
    prompts = [loaded(folder)[1]("Once upon a time, there was a girl of 12.")["input_ids"]]
    file = write_gguf(folder, tmp_path / "m.gguf", "f32", template=None).file
    found = check_gguf(file, folder, prompts, template=None)
    assert found.fault() is None
    assert set(found.texts) <= {STARTING_WITH_SPACE, "<unk>a <s>a </s>"}


def test_memory_holds_one_tensor(tmp_path):
    """The peak of the process while a model of 150 MB with tensors of 4 MB is written."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the kernel does not reset a process's peak")
    tokens = byte_level("gpt-2")
    small = save(tmp_path / "small", "llama", tokens)
    large = tmp_path / "large"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from safetensors.torch import save_file\n"
        "from transformers import AutoConfig, AutoModelForCausalLM\n"
        "from inlay.tuner.export.gguf import write_gguf\n"
        "small, large, out = map(Path, sys.argv[1:])\n"
        "config = AutoConfig.from_pretrained(small)\n"
        "config.hidden_size, config.intermediate_size, config.num_hidden_layers = 512, 2048, 12\n"
        "config.save_pretrained(large)\n"
        "for file in small.glob('tokenizer*'):\n"
        "    (large / file.name).write_bytes(file.read_bytes())\n"
        "with torch.device('meta'):\n"
        "    shapes = {k: v.shape for k, v in AutoModelForCausalLM.from_config(config).state_dict().items()}\n"
        "save_file({k: torch.ones(s) for k, s in shapes.items()}, large / 'model.safetensors')\n"
        "def peak(name):\n"
        "    text = Path('/proc/self/status').read_text()\n"
        "    return 1024 * int(text.split(name + ':')[1].split()[0])\n"
        "write_gguf(small, out / 'small.gguf', 'q8_0', template=None)\n"
        "for kind in ('f32', 'q8_0'):\n"
        "    Path('/proc/self/clear_refs').write_text('5')\n"
        "    before = peak('VmRSS')\n"
        "    write_gguf(large, out / 'large.gguf', kind, template=None)\n"
        "    print(peak('VmHWM') - before)\n"
    )
    large.mkdir()
    command = [sys.executable, "-c", script, small, large, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    model = (large / "model.safetensors").stat().st_size
    assert model > 150 * 2**20
    print(done.stdout)
    assert max(int(line) for line in done.stdout.split()) < 32 * 2**20


def upper_split():
    from tokenizers import Regex, pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{N}{1,2}|\s+|\S+"), "isolated"), level])


def spaced():
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=True)


def lowered():
    from tokenizers import normalizers

    tokens = byte_level("gpt-2")
    tokens.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokens


def stripping():
    from tokenizers import AddedToken

    tokens = byte_level("gpt-2")
    tokens.add_tokens([AddedToken("<mask>", lstrip=True)])
    return tokens


def two_starts():
    from tokenizers import processors

    tokens = byte_level("gpt-2")
    tokens.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> <|im_start|> $A", special_tokens=[("<|bos|>", 2), ("<|im_start|>", 3)]
    )
    return tokens


def unigram():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("▁", -2.0)], unk_id=0))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<unk>")


def other_merges():
    """A merge left out: SentencePiece would still join the pair."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    told = json.loads(sentencepiece().backend_tokenizer.to_str())
    del told["model"]["merges"][40]
    core = Tokenizer.from_str(json.dumps(told))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


REFUSED = {
    "architecture": ("gpt_neo", lambda: byte_level("gpt-2"), {}, "gpt_neo"),
    "activation": ("llama", lambda: byte_level("gpt-2"), {"hidden_act": "relu"}, "hidden_act: relu"),
    "yarn": ("llama", lambda: byte_level("gpt-2"), {"rope_parameters": YARN}, "`yarn`"),
    "llama3-qwen3": ("qwen3", lambda: byte_level("gpt-2"), {"rope_parameters": LLAMA3}, "`llama3`"),
    "partial": ("llama", lambda: byte_level("gpt-2"), {"rope_parameters": PARTIAL}, "part of each head"),
    "window": ("qwen2", lambda: byte_level("qwen2"), {"use_sliding_window": True}, "use_sliding_window"),
    "qwen2-heads": ("qwen2", lambda: byte_level("qwen2"), {"head_dim": 32}, "as wide"),
    "qwen3-biases": ("qwen3", lambda: byte_level("qwen2"), {"attention_bias": True}, "attention_bias"),
    "gpt2-scale": ("gpt2", lambda: byte_level("gpt-2"), {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by"),
    "split": ("llama", lambda: byte_level("gpt-2", pre_tokenizer=upper_split()), {}, "Split, ByteLevel"),
    "prefix": ("llama", lambda: byte_level("gpt-2", pre_tokenizer=spaced()), {}, "ByteLevel"),
    "normalizer": ("llama", lowered, {}, "Lowercase"),
    "stripping": ("llama", stripping, {}, "`<mask>`"),
    "starts": ("llama", two_starts, {}, "2 tokens before"),
    "unigram": ("llama", unigram, {}, "Unigram"),
    "merges": ("llama", other_merges, {}, "SentencePiece"),
    "rows": ("llama", lambda: byte_level("gpt-2"), {"vocab_size": 400}, "400 rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_x14_what_gguf_cannot_hold_is_refused_before_anything_is_written(name, tmp_path):
    shape, tokens, changes, reason = REFUSED[name]
    folder = save(tmp_path / "m", shape, tokens(), **changes)
    assert reason in refusal(*loaded(folder))
    with pytest.raises(RequestError) as error:
        write_gguf(folder, tmp_path / "m.gguf", "f32", template=None)
    [problem] = error.value.problems
    assert reason in problem.message
    assert "\n" not in problem.message
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("name", MODELS)
def test_what_gguf_holds_is_not_refused(name, models):
    assert refusal(*loaded(models(name))) is None


@pytest.mark.parametrize("fault", ["missing", "surplus", "integers"])
def test_weights_that_do_not_belong_are_refused(fault, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "m", "llama", byte_level("gpt-2"))
    weights = load_file(folder / "model.safetensors")
    if fault == "missing":
        del weights["model.layers.1.mlp.up_proj.weight"]
    elif fault == "surplus":
        weights["score.weight"] = torch.ones(2, 64)
    else:
        weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.int8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    expected = {"missing": "blk.1.ffn_up.weight", "surplus": "`score.weight`", "integers": "stored as I8"}[fault]
    with pytest.raises(RequestError, match=expected):
        write_gguf(folder, tmp_path / "m.gguf", "f32", template=None)
    assert not (tmp_path / "m.gguf").exists()


def test_weights_beyond_float16_leave_no_file(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "m", "llama", byte_level("gpt-2"))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = 70_000.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AnswerNo, match="up_proj"):
        write_gguf(folder, tmp_path / "m.gguf", "f16", template=None)
    assert not (tmp_path / "m.gguf").exists()
    assert write_gguf(folder, tmp_path / "m.gguf", "bf16", template=None).file.exists()


def test_x20_a_missing_library_is_named_before_anything_is_merged(models, monkeypatch):
    config, tokenizer = loaded(models("llama"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError) as error:
        refusal(config, tokenizer)
    monkeypatch.setattr(doctor.Library, "installed", lambda library: None)
    problem = doctor.missing_library(error.value)
    assert "gguf is not installed" in problem.message
    assert 'pip install "inlay[gguf]"' in problem.help
