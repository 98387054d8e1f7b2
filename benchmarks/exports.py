"""What an export changes: each run exported in several forms, held against base and adapter by its own proof.

    python benchmarks/exports.py RUN [RUN ...]

Merging into the original weights is what most tools do; it is written here with its drift accepted. A form that the
architecture does not allow is left out with its reason. Writes benchmarks/results/exports.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import inlay
from inlay.tuner.export.records import ExportRecord
from inlay.tuner.problems import Failure
from inlay.tuner.report import read_record

OUT = Path(__file__).resolve().parent / "results" / "exports.json"
FORMS = {
    "fp32": {"dtype": "fp32"},
    "bf16": {"dtype": "bf16"},
    "4 bit": {"dtype": "bf16", "quantize": "4bit"},
    "original base, bf16": {"dtype": "bf16", "base": "original", "accept_drift": True},
    "GGUF, bf16": {"form": "gguf", "dtype": "bf16"},
    "GGUF, q8_0": {"form": "gguf", "dtype": "q8_0"},
}


def main() -> None:
    made = [{"run": run, "forms": exported(Path(run))} for run in sys.argv[1:]]
    for one in made:
        record = read_record(Path(one["run"]))
        assert record.base is not None
        one |= {"run": record.name, "base": record.base.model, "task": record.task}
    OUT.write_text(json.dumps({"runs": made}, indent=1) + "\n", encoding="utf-8")
    print(OUT)


def exported(run: Path) -> dict[str, dict]:
    """Each form's record, with the bytes on disk; or why there is none."""
    found = {}
    for name, form in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = inlay.export(run, to=Path(folder) / "ship", **form)
            except Failure as failure:
                found[name] = {"refused": failure.problems[0].message}
                continue
            record = ExportRecord.model_validate_json((made / "export.json").read_text(encoding="utf-8"))
            size = sum(path.stat().st_size for path in made.iterdir())
            found[name] = {"bytes": size, "record": record.model_dump(mode="json")}
    return found


if __name__ == "__main__":
    main()
