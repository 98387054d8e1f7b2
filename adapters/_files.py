"""The two files of a saved adapter, `adapter_config.json` and `adapter_model.safetensors`, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def read_config(folder: Path) -> dict[str, object]:
    """What `adapter_config.json` says.

    Raises:
        ValueError: the file is missing or is not a JSON object.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {CONFIG}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged: it is no JSON object")
    return config


def write_config(config: Mapping[str, object], folder: Path) -> None:
    """Writes `adapter_config.json`, keys sorted; makes the folder where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of the adapter in `folder`, on the CPU.

    Raises:
        ValueError: the file is missing or is not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {WEIGHTS}") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def write_weights(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Writes `adapter_model.safetensors`; makes the folder where there is none."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    # Clones: safetensors refuses views and tensors that share memory.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(copies, folder / WEIGHTS, {"format": "pt"})


def require_equal_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Checks that `found` has the names and shapes of `expected`.

    Raises:
        ValueError: it has not; names up to three tensors of each kind.
    """
    faults = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} ({_shape(found[name])} instead of {_shape(tensor)})"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    said = [
        f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in faults.items()
        if names
    ]
    if said:
        raise ValueError(f"{source} does not fit this adapter on this base: {'; '.join(said)}")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
