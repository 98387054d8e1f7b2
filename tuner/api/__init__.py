"""inlay: parameter-efficient fine-tuning on a 4-bit base, benchmarked.

    import inlay

    folder = inlay.run("quickstart", overrides=["train.max_steps=50"])

Each function is a verb of the command line. Importing this module loads nothing heavy; a verb loads what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from inlay.tuner.recipe import Recipe

__version__ = "0.1.0"
__all__ = [
    "check",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "generate",
    "init",
    "load_recipe",
    "ls",
    "report",
    "run",
    "schema",
]


def run(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    again: bool = False,
) -> Path:
    """Trains, measures and reports what a recipe asks for.

    Args:
        recipe: a file, the name of a shipped recipe, or what `load_recipe` returned.
        overrides: each `dotted.path=value`, for a recipe that is named.
        output: where the run goes; `runs/<name>-<hash>` by default.
        again: start a new run although the same recipe is done.

    Returns:
        The run's folder.

    Raises:
        inlay.tuner.problems.Failure: its subclass and its problems say what went wrong.
    """
    loaded = _recipe(recipe, overrides)

    from inlay.tuner.run import run as start

    return start(loaded, output=Path(output) if output else None, again=again, command="inlay.run")


def compare(
    *targets: str | Path,
    methods: Sequence[str] | None = None,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    again: bool = False,
) -> Path:
    """Compares adapter methods on one base, with the same rows, budget and decoding.

    Args:
        targets: one comparison or recipe, by file or name; or the folders of finished runs.
        methods: what to compare on a recipe.
        seeds: of those, how many; three where it is None.
        overrides: each `dotted.path=value`, for all rows.
        output: the comparison's folder; `runs/<name>-<hash>` by default.
        again: start anew although the same comparison is done.

    Returns:
        The comparison's folder.

    Raises:
        inlay.tuner.problems.Failure: its subclass and its problems say what went wrong.
    """
    from inlay.tuner.comparison.ask import answered

    return answered(
        [str(target) for target in targets],
        methods=methods,
        seeds=seeds,
        overrides=overrides,
        output=Path(output) if output else None,
        again=again,
        command="inlay.compare",
    )


def export(
    *targets: str | Path,
    to: str | Path,
    form: Literal["merged", "gguf", "adapter"] | None = None,
    dtype: Literal["bf16", "fp16", "fp32", "q8_0"] = "bf16",
    base: str | None = None,
    quantize: Literal["4bit"] | None = None,
    as_lora: bool = False,
    rank: int | None = None,
    combine: str | None = None,
    weights: Sequence[float] = (),
    density: float | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    accept_drift: bool = False,
    overwrite: bool = False,
    push: str | None = None,
    public: bool = False,
) -> Path:
    """Writes the merged model of an adapter, and proves that it is the one that was benchmarked.

    Args:
        targets: a finished run, by folder or name; or the folder of an adapter that was made elsewhere; or several of
            either, to combine.
        to: the folder to write.
        form: a plain model's folder, a GGUF file with its Modelfile, or the adapter with a loader; a plain model's by
            default, and the adapter with `as_lora`.
        dtype: of the weights; `q8_0` of a GGUF file alone.
        base: of a run, the weights to merge into: `dequantized`, those that were trained on, or `original`, which needs
            `accept_drift`; of an adapter made elsewhere, the model that it belongs on.
        quantize: the merged model again, and tell what that costs.
        as_lora: write the adapter as one of LoRA, which other servers load.
        rank: of that, at most; as high as loses nothing by default. Of a combination by singular values, too.
        combine: how several adapters become one, by the name of PEFT's `combination_type`.
        weights: of each of them; equal by default.
        density: the share of the numbers that TIES, DARE and magnitude pruning keep.
        recipe, overrides: of an adapter made elsewhere, whose rows it is proved on; of several, too, in place of those
            of the first run.
        accept_drift: write the export although the proof finds it to be another model.
        overwrite: replace a folder that is not empty.
        push: upload it to this repository of the Hugging Face Hub too, as one commit, with the token of this machine.
        public: make that repository for everyone to see; one that is public already is refused otherwise.

    Returns:
        The export's folder; its `export.json` holds the proof.

    Raises:
        inlay.tuner.problems.Failure: the request or the machine was wrong, or the proof failed and nothing is written;
            or it could not be pushed, and is in the folder all the same.
    """
    from inlay.tuner.export import Order, destination
    from inlay.tuner.export import export as start
    from inlay.tuner.export import push as upload
    from inlay.tuner.listing import adapter_named

    where = destination(push, public=public)
    order = Order(
        targets=tuple(adapter_named(str(target)) for target in targets),
        to=Path(to),
        form=form or ("adapter" if as_lora else "merged"),
        dtype=dtype,
        base=base,
        four_bit=quantize == "4bit",
        recipe=recipe,
        overrides=tuple(overrides),
        as_lora=as_lora,
        rank=rank,
        combine=combine,
        weights=tuple(weights),
        density=density,
        accept_drift=accept_drift,
        overwrite=overwrite,
    )
    folder = start(order)
    if where:
        upload(folder, where)
    return folder


def check(
    recipe: str | Path | Recipe, *, overrides: Sequence[str] = (), rows: int = 1, timed: bool = True
) -> tuple[str, bool]:
    """What a recipe would do, and whether nothing stands against it. Nothing is trained or written.

    Args:
        recipe: a file, the name of a shipped recipe, or what `load_recipe` returned.
        overrides: each `dotted.path=value`, for a recipe that is named.
        rows: training rows to show.
        timed: load the base and time three steps and one batch of the benchmark.

    Raises:
        inlay.tuner.problems.Failure: the run would be refused; its problems say why.
    """
    from inlay.tuner.check import check as examine

    checked = examine(_recipe(recipe, overrides), rows=rows, timed=timed)
    return checked.text, checked.sound


def evaluate(
    target: str | Path,
    *,
    recipe: str | Path | Recipe | None = None,
    base: str | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Measures a run, an adapter or a base.

    Args:
        target: a run's folder, an adapter's folder, or a model.
        recipe: data, metrics and decoding; a run's own by default.
        base: the base that an adapter belongs on.
        overrides: each `dotted.path=value`, for the recipe that is named, or a run's own.

    Returns:
        The folder that holds the result.

    Raises:
        inlay.tuner.problems.Failure: its subclass and its problems say what went wrong.
    """
    from inlay.tuner.listing import run_named
    from inlay.tuner.rescore import rescore

    loaded = None if recipe is None else _recipe(recipe, overrides)
    return rescore(str(run_named(str(target)) or target), recipe=loaded, overrides=overrides, base=base)


def generate(
    target: str | Path,
    *,
    input: str | Path,
    output: str | Path,
    base: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
) -> Path:
    """Answers every row of a file; stopped and asked again, it goes on where it was.

    Args:
        target: a run's folder, an adapter's folder, or a model.
        input: rows with the run's own columns, or `messages`, or `prompt`.
        output: must not exist; JSON lines with `line`, `id`, `prediction` and `finished`, in the order of the input.
        base: the base of an adapter or run, where it is elsewhere now.
        max_new_tokens: longest answer; the run's own by default, as all that follows.
        temperature: above 0, answers are drawn; 0 takes the likeliest token each time.
        top_p: draw among the likeliest tokens of this share in all.
        top_k: draw among so many tokens.
        seed: of what is drawn.

    Returns:
        `output`.

    Raises:
        inlay.tuner.problems.Failure: its subclass and its problems say what went wrong.
    """
    from inlay.tuner.listing import run_named
    from inlay.tuner.serve.decoding import Wishes
    from inlay.tuner.serve.generate import generate as answer_all

    return answer_all(
        str(run_named(str(target)) or target),
        input=Path(input),
        output=Path(output),
        base=base,
        wishes=Wishes(max_new_tokens, temperature, top_p, top_k, seed),
    )


def report(run: str | Path) -> Path:
    """Draws the page of a run again, from its files alone.

    Returns:
        The page.

    Raises:
        inlay.tuner.problems.RequestError: `run` is not a run.
    """
    from inlay.tuner.listing import find_run
    from inlay.tuner.report import write_page

    return write_page(find_run(str(run)))


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, or the shipped one of that name, checked as a whole.

    Raises:
        inlay.tuner.problems.RequestError: carries every mistake, each with file, line and dotted path.
    """
    from inlay.tuner.recipe import load

    return load(path_or_name, overrides)


def ls(topic: str | None = None) -> str:
    """What there is: `methods`, `tasks`, `metrics`, `recipes` or `runs`; all but the runs where no topic is named."""
    from inlay.tuner.listing import listing

    return listing(topic)


def init(task: str = "summarization") -> str:
    """A commented recipe to start from, as YAML."""
    from inlay.tuner.recipe import starter

    return starter(task, f"{task}.yaml")


def doctor() -> tuple[str, bool]:
    """What works on this machine and how to get the rest, and whether all that is needed is there."""
    from inlay.tuner.doctor import examine

    return examine()


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe."""
    from inlay.tuner.recipe import schema as recipe_schema

    return recipe_schema()


def _recipe(recipe: str | Path | Recipe, overrides: Sequence[str]) -> Recipe:
    if isinstance(recipe, (str, Path)):
        return load_recipe(recipe, overrides)
    if overrides:
        raise TypeError("overrides go with a recipe that is named; this one is loaded already")
    return recipe
