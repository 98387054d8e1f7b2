"""Where a base model's files are, and whether they are all there and safe, before any weight is loaded.

A model is a local folder, a hub id with a revision, or `embedded`. Weights are read from safetensors alone; code that a
repository brings is never run, and configuration keys that choose code or kernels are dropped.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from inlay.tuner.problems import MachineError, Problem, RequestError
from inlay.tuner.quantization import Entry, Stored, plain_dtypes, read_stored

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json")
HASHED = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
CODE_KEYS = re.compile(r"auto_map|implementation|kernels|kernel_config|custom_|trust_remote|quantization_config")
LARGEST_HEADER_BYTES = 100 * 2**20


@dataclass(frozen=True)
class ModelFiles:
    """A base model on this disk.

    Attributes:
        name: as the recipe names it; for a folder, its last part.
        folder: where the files are.
        revision: the hub commit, None for a folder.
        weights: the safetensors files, in order.
        dtypes: of their tensors, as safetensors names them; what belongs to a quantized weight is left out.
        stored: the 4-bit weights that they hold; None where all are plain.
    """

    name: str
    folder: Path
    revision: str | None
    weights: tuple[Path, ...]
    dtypes: frozenset[str] = frozenset()
    stored: Stored | None = None

    def config(self) -> dict[str, object]:
        """config.json without the keys that choose code, kernels or a quantization of their own."""
        return _without_code(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))

    def sha256(self) -> str:
        """One hash over names and contents of the config, the tokenizer and the weights."""
        total = hashlib.sha256()
        paths = {*self.weights, *(self.folder / name for name in (*HASHED, *TOKENIZER_FILES))}
        for path in sorted((p for p in paths if p.is_file()), key=lambda p: p.name):
            with path.open("rb") as file:
                total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()


def locate(model: str, revision: str | None = None) -> ModelFiles:
    """Finds a model by folder, hub id or `embedded`, and checks that its files are complete.

    Raises:
        RequestError: no such folder or repository, or files are missing or broken; all of them are named.
        MachineError: the hub cannot be reached and the model is not in the local cache.
    """
    if model == "embedded":
        folder = Path(str(resources.files("inlay.recipes") / "embedded" / "base"))
        return checked("embedded", folder, None)
    path = Path(model).expanduser()
    if path.is_dir():
        return checked(path.resolve().name, path.resolve(), None)
    if path.is_absolute() or model.startswith((".", "~")) or not HUB_ID.fullmatch(model):
        raise RequestError(Problem(f"no model folder `{model}`", path="base.model", help=_nearest_folder(path)))
    folder = _download(model, revision)
    return checked(model, folder, folder.name)


def _nearest_folder(path: Path) -> str:
    parent = path.parent
    folders = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
    close = difflib.get_close_matches(path.name, folders, n=1)
    if close:
        return f"did you mean `{parent / close[0]}`?"
    return "give a folder, a hub id such as `org/name`, or `embedded`"


def _download(model: str, revision: str | None) -> Path:
    """The snapshot folder of a hub model: configuration, tokenizer and safetensors files only."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    ignored = ["*/*", "consolidated*.safetensors"]
    where = f"{model}@{revision}" if revision else model
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns, ignore_patterns=ignored))
    except GatedRepoError:
        raise RequestError(
            Problem(
                f"`{model}` is gated: its owner asks you to accept a licence",
                path="base.model",
                help=f"accept it at https://huggingface.co/{model}, then `hf auth login`",
            )
        ) from None
    except RevisionNotFoundError:
        raise RequestError(Problem(f"`{model}` has no revision `{revision}`", path="base.revision")) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise RequestError(
            Problem(f"no model folder and no hub repository `{model}`", path="base.model", help="check the spelling")
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError):
        raise MachineError(
            f"`{where}` is not a folder here, not in the local hub cache, and the hub cannot be reached",
            help=f"on a machine with network: `hf download {model}`; or set base.model to a local folder",
        ) from None


def checked(name: str, folder: Path, revision: str | None, *, tokenizer: bool = True) -> ModelFiles:
    """The files of a model's folder.

    Args:
        tokenizer: whether one has to be there.

    Raises:
        RequestError: lists everything that is missing or broken.
    """
    faults: list[str] = []
    if (folder / "adapter_config.json").is_file():
        faults.append(  # transformers would load the base that this file names, instead of this folder's weights
            "it holds an adapter (adapter_config.json); base.model names a base, and `inlay eval` takes adapters"
        )
    config = _read_config(folder, faults)
    if tokenizer and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        faults.append(f"no tokenizer (one of {', '.join(TOKENIZER_FILES)})")
    weights = _weight_files(folder, faults)
    tensors: dict[str, Entry] = {}
    for path in weights:
        try:
            tensors |= _read_header(path)
        except ValueError as error:
            faults.append(f"{path.name}: {error}")
    stored = None
    if config.get("quantization_config"):
        try:
            stored = read_stored(config["quantization_config"], tensors)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise RequestError(
            [Problem(f"the model folder `{name}` cannot be used: {fault}", path="base.model") for fault in faults]
        )
    return ModelFiles(name, folder, revision, tuple(weights), plain_dtypes(tensors), stored)


def _read_config(folder: Path, faults: list[str]) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        faults.append("no config.json")
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        faults.append(f"config.json is not JSON ({error})")
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        faults.append("config.json names no model_type")
        return {}
    return content


def _weight_files(folder: Path, faults: list[str]) -> list[Path]:
    single = folder / "model.safetensors"
    if single.is_file():  # before an index, as transformers has it
        return [single]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            outside = [name for name in shards if os.path.basename(name) != name]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            shards = []
        if not shards:
            faults.append(f"{index.name} is broken")
            return []
        missing = [name for name in shards if not (folder / name).is_file()]
        faults += [f"{index.name} names a file outside the folder: {name}" for name in outside]
        faults += [f"weight file {name} is missing" for name in missing if name not in outside]
        return [folder / name for name in shards if name not in missing and name not in outside]
    pickles = sorted(p.name for p in folder.glob("*.bin")) if folder.is_dir() else []
    if pickles:
        faults.append(
            f"its weights are a pickle ({pickles[0]}), which can run code when opened and is never read; "
            "convert it to safetensors first"
        )
    else:
        faults.append("no model.safetensors")
    return []


def _read_header(path: Path) -> dict[str, Entry]:
    """What a safetensors header says of each tensor, checked against the file's size; no weight is read.

    Raises:
        ValueError: it is none, or speaks of another file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER_BYTES):
            raise ValueError("truncated, or not a safetensors file")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
        entries = {
            name: Entry(str(entry["dtype"]), end - int(entry["data_offsets"][0]))
            for (name, entry), end in zip(header.items(), ends, strict=True)
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise ValueError("its header is broken") from None
    expected = 8 + length + max(ends, default=0)
    if expected != size:
        raise ValueError(f"its header speaks of {expected} bytes, the file has {size}")
    return entries


def _without_code(config: object) -> object:
    if isinstance(config, dict):
        return {key: _without_code(value) for key, value in config.items() if not CODE_KEYS.search(key)}
    return config
