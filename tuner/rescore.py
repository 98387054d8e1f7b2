"""`inlay eval`: benchmarks again, from disk: a run, an adapter on a base, or a model as it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from inlay.tuner import adapter_folder, benchmark, saved
from inlay.tuner.console import Progressing, hushed
from inlay.tuner.environment import describe
from inlay.tuner.problems import RequestError
from inlay.tuner.recipe import Adapter, Recipe, load, recipe_hash, resolved_yaml
from inlay.tuner.records import DataRecord, RunRecord
from inlay.tuner.report import read_record, write_page
from inlay.tuner.run import adapter_record, base_record, begin, labelled
from inlay.tuner.run_directory import RunDirectory, free_path
from inlay.tuner.setting import survey
from inlay.tuner.signals import StopRequest


def rescore(target: str, *, recipe: Recipe | str | Path | None, overrides: Sequence[str], base: str | None) -> Path:
    """Benchmarks `target` and writes a run folder without training.

    Args:
        target: a run's folder; an adapter's folder; or a model, by folder or hub id.
        recipe: data, metrics and decoding; a run brings its own.
        overrides: each `dotted.path=value`, for a recipe that is not loaded yet.
        base: the base that an adapter belongs to, where `target` is an adapter and the recipe names another.

    Returns:
        The new folder.

    Raises:
        Failure: the request, the machine or the outcome was wrong.
    """
    started = time.time()
    show = Progressing()
    run, adapter = saved.find(Path(target))
    own = recipe is None
    if not isinstance(recipe, Recipe):
        recipe = load(recipe, overrides) if recipe else _own_recipe(run, target, overrides)
    recipe = _with_base(recipe, base) if adapter else _without_adapter(_with_base(recipe, target))
    if adapter and not own:
        recipe = adapter_folder.as_saved(recipe, adapter, asked_first=False)
    recipe = _from_nothing(recipe)
    with hushed(), StopRequest():
        setting = survey(recipe, (recipe.eval.split,))
        if adapter:
            adapter_folder.refuse_other_base(adapter, setting.files)
        recipe = setting.recipe
        digest = recipe_hash(recipe)
        path, _ = free_path(f"eval-{recipe.name}", digest)
        folder = RunDirectory.create(path, begin(path, recipe, digest, f"inlay eval {target}"), resolved_yaml(recipe))
        with labelled(folder, started, show):
            opened = setting.open_base()
            if run:
                _tell_other_data(read_record(run), setting.data.record, show)
            folder.update(
                base=base_record(setting, opened), data=setting.data.record, environment=describe(opened.device)
            )
            adapted = saved.open_adapter(setting.method, setting.facts, opened, adapter)
            if adapter:
                folder.update(adapter=adapter_record(setting, setting.method.continued(setting.facts), adapter))
            trained = adapter is not None and setting.method.continued(setting.facts) > 0
            result = benchmark.measure(setting, opened, adapted, trained=trained, progress=show.step)
            show.clear()
            folder.write_predictions(benchmark.predictions(setting, result))
            folder.update(
                eval=benchmark.eval_record(setting, result),
                metrics=benchmark.metric_records(result),
                status="complete",
                seconds=time.time() - started,
            )
            write_page(folder.path)
    return folder.path


def _own_recipe(run: Path | None, target: str, overrides: Sequence[str]) -> Recipe:
    if run is None:
        raise RequestError(
            f"`{target}` is not a run, so it brings no recipe", help="say what to measure with --recipe RECIPE"
        )
    return saved.own_recipe(run, overrides)


def _with_base(recipe: Recipe, model: str | None) -> Recipe:
    """The recipe on another base."""
    if model is None:
        return recipe
    return recipe.on_base(model)


def _from_nothing(recipe: Recipe) -> Recipe:
    """The recipe without the adapter that training began with: what is measured holds all that came of it."""
    return recipe.model_copy(update={"adapter": recipe.adapter.model_copy(update={"start_from": None})})


def _without_adapter(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"adapter": Adapter.model_validate({"method": "none"})})


def _tell_other_data(record: RunRecord, now: DataRecord, show: Progressing) -> None:
    """Says which files are not those of the run; the new numbers are then not its own."""
    before = {file.name: file.sha256 for file in record.data.inputs} if record.data else {}
    for file in now.inputs:
        if before.get(file.name, file.sha256) != file.sha256:
            show.say(f"warning  {file.name} has changed since the run: these are not the rows that it was measured on")
