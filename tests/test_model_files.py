"""Model folders from strangers: what is missing is told at once, and nothing in them runs or connects anywhere."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inlay.tuner import base as bases
from inlay.tuner.model_files import locate
from inlay.tuner.problems import MachineError, RequestError


@pytest.fixture
def folder(tiny_models, tmp_path):
    return Path(shutil.copytree(tiny_models("llama"), tmp_path / "model"))


def edit(path: Path, **fields) -> None:
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def examine(folder: Path):
    """Everything that is read before weights are loaded."""
    files = locate(str(folder))
    bases.read_facts(bases.read_config(files), 4)
    bases.read_tokenizer(files)
    return files


def no_config(folder):
    (folder / "config.json").unlink()


def bad_json(folder):
    (folder / "config.json").write_text("{")


def deep_json(folder):
    (folder / "config.json").write_text("[" * 100_000)


def no_model_type(folder):
    edit(folder / "config.json", model_type=None)


def wrong_field(folder):
    edit(folder / "config.json", hidden_size="sixty-four")


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"model": 3}')


def no_end(folder):
    edit(folder / "tokenizer_config.json", eos_token=None)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def wrong_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])


def odd_header(folder):
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, "x"]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def index(content):
    def write(folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": content}))

    return write


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Runs(folder / "ran")))


def quantized(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def unknown_type(folder):
    edit(folder / "config.json", model_type="lamma")


def encoder_only(folder):
    edit(folder / "config.json", model_type="bert")


def with_adapter(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "elsewhere"}))


class _Runs:
    """A pickle of this writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


BROKEN = [
    (no_config, "no config.json"),
    (bad_json, "config.json is not JSON"),
    (deep_json, "config.json is not JSON"),
    (no_model_type, "names no model_type"),
    (wrong_field, "config.json of `model` is invalid"),
    (no_tokenizer, "no tokenizer"),
    (broken_tokenizer, "the tokenizer of `model` cannot be read"),
    (no_end, "names no end-of-text token"),
    (truncated, "model.safetensors: its header speaks of"),
    (wrong_header, "model.safetensors: truncated, or not a safetensors file"),
    (odd_header, "model.safetensors: its header is broken"),
    (no_weights, "no model.safetensors"),
    (index({"a": "model-1.safetensors"}), "weight file model-1.safetensors is missing"),
    (index({"a": "../model/config.json"}), "names a file outside the folder"),
    (index({"a": 5}), "index.json is broken"),
    (index({}), "index.json is broken"),
    (pickled, "can run code when opened and is never read"),
    (quantized, "already quantized"),
    (unknown_type, "`lamma` of `model` is unknown to transformers"),
    (encoder_only, "neither a causal nor a sequence-to-sequence"),
    (with_adapter, "it holds an adapter"),
]


@pytest.mark.parametrize(("breaks", "words"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_f17_a_broken_folder_is_told_before_weights_are_loaded(breaks, words, folder):
    examine(folder)
    breaks(folder)
    with pytest.raises(RequestError) as told:
        examine(folder)
    (problem,) = told.value.problems
    assert words in problem.message
    assert "\n" not in problem.message
    assert not (folder / "ran").exists()


def test_f17_all_faults_are_told_at_once(folder):
    for breaks in (quantized, no_tokenizer, truncated, with_adapter):
        breaks(folder)
    with pytest.raises(RequestError) as told:
        locate(str(folder))
    assert len(told.value.problems) == 4


def test_f17_a_folder_that_is_not_there_has_a_nearest(folder):
    with pytest.raises(RequestError, match=r"did you mean `.*/model`"):
        locate(str(folder.with_name("modle")))


def test_what_is_hashed_is_what_is_loaded(folder, tiny_models):
    """transformers takes model.safetensors where there is an index too."""
    shutil.copy(tiny_models("llama", seed=5) / "model.safetensors", folder / "part.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "part.safetensors"}}))
    assert [path.name for path in locate(str(folder)).weights] == ["model.safetensors"]


def test_s29_the_hash_sees_weights_config_and_tokenizer(folder):
    seen = {locate(str(folder)).sha256()}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text() + " ")
        seen.add(locate(str(folder)).sha256())
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    seen.add(locate(str(folder)).sha256())
    assert len(seen) == 5
    moved = folder.rename(folder.with_name("moved"))
    assert locate(str(moved)).sha256() in seen


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_x3_a_repository_cannot_run_its_code(name, folder):
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass A:\n    pass\n")
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer", "AutoModel")
    code = {"auto_map": {kind: ["code.A", "code.A"] if kind == "AutoTokenizer" else "code.A" for kind in classes}}
    code |= {"custom_generate": "code.py", "trust_remote_code": True}
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **code}))
    script = (
        "import sys, time\n"
        "from inlay.tuner import base, model_files\n"
        "import torch, transformers, peft, bitsandbytes\n"
        "started = time.monotonic()\n"
        "files = model_files.locate(sys.argv[1])\n"
        "facts, tokens = base.read_facts(base.read_config(files), 32), base.read_tokenizer(files)\n"
        "opened = base.open_base(files, base.Quantization(32), facts, tokens)\n"
        "print(type(opened.model).__name__, time.monotonic() - started)\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    kind, seconds = done.stdout.split()
    assert kind == "LlamaForCausalLM"
    assert float(seconds) < 15  # waiting for an answer to a question takes 15
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal", "_experts_implementation"]
)
def test_x4_a_config_cannot_choose_a_kernel(key, folder, monkeypatch):
    calls = []

    class Kernels:
        __spec__ = None

        def __getattr__(self, name):
            if not name.startswith("__"):
                calls.append(name)
            raise AttributeError(name)

    monkeypatch.setitem(sys.modules, "kernels", Kernels())
    edit(folder / "config.json", **{key: "someone/kernel"}, use_kernels=True, kernel_config={"a": "b/c"})
    files = locate(str(folder))
    config = bases.read_config(files)
    assert "someone/kernel" not in str(config.to_dict().values())
    facts, tokenizer = bases.read_facts(config, 32), bases.read_tokenizer(files)
    opened = bases.open_base(files, bases.Quantization(32), facts, tokenizer)
    assert opened.model.config._attn_implementation == "sdpa"
    assert calls == []


def test_x4_a_convolution_keeps_its_kernel_size(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x", "conv_kernel": 7, "use_mamba_kernels": True}))
    from inlay.tuner.model_files import ModelFiles

    assert ModelFiles("x", tmp_path, None, ()).config() == {"model_type": "x", "conv_kernel": 7}


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(folder, tmp_path, monkeypatch):
    """A local hub cache that holds `org/name` at one commit."""
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_cached_hub_model_is_found_offline(revision, cache):
    files = locate("org/name", revision)
    assert (files.name, files.revision) == ("org/name", COMMIT)
    examine(files.folder)


@pytest.mark.parametrize(("name", "revision"), [("org/other", None), ("org/name", "v2")])
def test_f23_a_hub_model_that_is_not_here_is_told(name, revision, cache):
    with pytest.raises(MachineError, match=rf"hf download {name}") as told:
        locate(name, revision)
    assert told.value.exit_code == 3


@pytest.mark.parametrize("name", ["org--x/name", "org/name.git", "a..b/c"])
def test_a_name_that_the_hub_does_not_allow_is_no_bug(name, cache):
    with pytest.raises((RequestError, MachineError)):
        locate(name)


def test_f23_the_suite_notices_a_connection():
    with pytest.raises(AssertionError, match="tried to look up"):
        socket.getaddrinfo("huggingface.co", 443)
    with socket.socket() as probe:
        probe.settimeout(1)
        with pytest.raises(AssertionError, match="tried to connect"):
            probe.connect(("192.0.2.1", 443))


def test_examining_a_folder_is_quick(folder):
    examine(folder)
    started = time.monotonic()
    locate(str(folder))
    assert time.monotonic() - started < 2
