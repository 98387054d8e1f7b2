"""An adapter as an export of its own: its files, the format of its prompts, and a loader that anyone can run."""

from __future__ import annotations

import shutil
from pathlib import Path

from inlay.tuner import adapter_folder
from inlay.tuner.export import folder as folders
from inlay.tuner.export.loader import LOADER, has_loader, loader
from inlay.tuner.export.source import Source
from inlay.tuner.problems import RequestError


def refuse_adapter(source: Source) -> None:
    """Says before anything is written why the adapter cannot be loaded without this program.

    Raises:
        RequestError: its method needs the base as no plain loader holds it.
    """
    if not has_loader(source.setting):
        reason = f"{source.setting.method.title} has no adapter that can be loaded on this base without inlay"
        raise RequestError(reason, help="export it with --format merged")


def write_adapter_part(source: Source, folder: Path) -> None:
    """Writes the files of the adapter, the tokenizer with its chat template, the decoding and the loader."""
    for name in (adapter_folder.CONFIG, adapter_folder.WEIGHTS, adapter_folder.BASE):
        if (source.adapter / name).is_file():
            shutil.copyfile(source.adapter / name, folder / name)
    folders.write_tokenizer(folder, source)
    folders.write_generation(folder, source)
    (folder / LOADER).write_text(loader(source), encoding="utf-8")
