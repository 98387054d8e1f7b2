"""`inlay compare` as it is asked for: a specification, a recipe with methods, or finished runs; and its answer.

A comparison that is finished is answered from its folder, and nothing heavy is imported for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inlay.tuner.comparison import plan, spec, store
from inlay.tuner.problems import RequestError
from inlay.tuner.run_directory import RUNS


def answered(
    targets: Sequence[str],
    *,
    methods: Sequence[str] | None,
    seeds: int | None,
    overrides: Sequence[str],
    output: Path | None,
    again: bool,
    command: str,
) -> Path:
    """The folder of the comparison that is asked for, made or finished first where it is not there.

    Args:
        targets: one specification or recipe, by file or name; or folders of finished runs.
        methods: what to compare on a recipe; None where `targets` are no recipe.
        seeds: of those, how many; three where it is None.
        overrides: each `dotted.path=value`.
        output: the folder; by default one under `runs/`.
        again: start anew even if the same is done.
        command: what the user typed.

    Raises:
        Failure: the request, the machine or the outcome was wrong.
    """
    runs = [_run(target) for target in targets]
    if all(runs) and methods is None:
        from inlay.tuner.comparison.finished import compare_runs

        if overrides or seeds is not None:
            raise RequestError("finished runs are compared as they are", help="leave out --set and --seeds")
        return compare_runs([run for run in runs if run], output=output, again=again, command=command)
    if len(targets) > 1:
        missing = next(target for target, run in zip(targets, runs, strict=True) if run is None)
        raise RequestError(f"`{missing}` is no finished run", help="give runs, or one comparison, or one recipe")
    target = targets[0]
    if methods is not None:
        named = [name.strip() for name in methods if name.strip()]
        asked = plan.from_methods(target, named, 3 if seeds is None else seeds, overrides)
    elif spec.is_spec(target):
        if seeds is not None:
            raise RequestError(f"`{target}` names its seeds itself", help="write `seeds:` there, and leave out --seeds")
        asked = plan.from_spec(target, overrides)
    else:
        raise RequestError(
            f"`{target}` is no comparison",
            help="`--methods lora,prefix,...` compares methods on a recipe; a file with `rows:` is a comparison",
        )
    folder, begun = store.folder_of(asked, output, again=again)
    if begun is not None and begun.status == "complete":
        store.require_same_inputs(begun, asked.rows[0].recipe, folder)
        if not (folder / "comparison.html").is_file():  # stopped between the last cell and the page
            from inlay.tuner.comparison.page import write_pages

            write_pages(folder)
        return folder

    from inlay.tuner.comparison.compare import compare

    return compare(asked, output=output, again=again, command=command)


def show(folder: Path) -> int:
    """Prints the table of the comparison in `folder`; 1 where a row that was asked for has no score, else 0."""
    from inlay.tuner.comparison.terminal import table

    record = store.read_comparison(folder)
    print(table(record, folder))
    return 0 if all(row.status == "done" for row in record.rows) else 1


def _run(target: str) -> Path | None:
    """The run's folder that `target` names, if it names one."""
    return next((path for path in (Path(target), RUNS / target) if (path / "run.json").is_file()), None)
