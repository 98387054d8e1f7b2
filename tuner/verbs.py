"""The verbs: what each takes, calls and prints. stdout holds the answer, stderr progress and mistakes.

Nothing heavy is imported here: each verb imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from inlay.tuner.problems import Problem, RequestError

if TYPE_CHECKING:
    from inlay.tuner.serve.decoding import Wishes

_DEFAULT_TASK = "summarization"


class _Parser(argparse.ArgumentParser):
    """argparse, with mistakes told like all others."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(message, help=f"`{self.prog} --help` shows how it is used")


def command_line() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and that of each verb by name; what is parsed holds the function to `call`."""
    from inlay import __version__

    parser = _Parser(
        prog="inlay", description="Train an adapter on a 4-bit base, and measure what it changed.", allow_abbrev=False
    )
    parser.set_defaults(call=None)
    parser.add_argument("--version", action="version", version=f"inlay {__version__}")
    _add_debug(parser)
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB")
    verbs: dict[str, _Parser] = {}

    def add(name: str, summary: str, call: Callable[[argparse.Namespace], int | None]) -> _Parser:
        verb = subparsers.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)
        verb.set_defaults(call=call)
        _add_debug(verb)
        verbs[name] = verb
        return verb

    run = add("run", "train, measure and report what a recipe asks for", _run)
    run.add_argument("recipe", metavar="RECIPE", help="a file, or a name that `inlay ls recipes` shows")
    _add_set(run)
    run.add_argument("--output", type=Path, metavar="DIR", help="where the run goes (runs/<name>-<hash>)")
    run.add_argument("--again", action="store_true", help="start a new run although the same recipe is done")

    check = add("check", "say what a recipe would do, and what to look at first", _check)
    check.add_argument("recipe", nargs="?", metavar="RECIPE", help="a file, or a name that `inlay ls recipes` shows")
    check.add_argument("--rows", type=int, default=1, metavar="N", help="training rows to show (1)")
    check.add_argument("--no-timing", action="store_true", help="load no weights: no forecast of time")
    check.add_argument("--explain", metavar="CODE", help="say what a finding means, such as D107")
    _add_set(check)

    rescore = add("eval", "measure a run, an adapter or a base", _eval)
    rescore.add_argument("target", metavar="TARGET", help="a run, an adapter's folder, or a model")
    rescore.add_argument("--recipe", metavar="RECIPE", help="data, metrics and decoding (the run's own)")
    rescore.add_argument("--base", metavar="MODEL", help="the base that an adapter belongs on")
    _add_set(rescore)

    compare = add("compare", "compare adapter methods on the same base, rows and budget", _compare)
    compare.add_argument("targets", nargs="+", metavar="TARGET", help="a comparison's file, a recipe, or runs")
    compare.add_argument("--methods", metavar="A,B,...", help="with a recipe: the methods to compare")
    compare.add_argument("--seeds", type=int, metavar="N", help="with a recipe: how many seeds (3)")
    compare.add_argument("--output", type=Path, metavar="DIR", help="where it goes (runs/<name>-<hash>)")
    compare.add_argument("--again", action="store_true", help="start anew although the same comparison is done")
    _add_set(compare)

    export = add("export", "write the merged model, and prove that it is what was benchmarked", _export)
    help = "a run, or the folder of an adapter made elsewhere; or several, with --combine"
    export.add_argument("targets", nargs="+", metavar="TARGET", help=help)
    export.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to write")
    help = "a plain model, a GGUF file with its Modelfile, or the adapter with a loader (merged)"
    export.add_argument("--format", choices=("merged", "gguf", "adapter"), help=help)
    export.add_argument("--as-lora", action="store_true", help="the adapter as one of LoRA, which other servers load")
    export.add_argument("--rank", type=int, metavar="N", help="of that, at most (as high as loses nothing)")
    help = "several adapters of LoRA into one, by PEFT's names: cat, linear, svd, ties, dare_ties, ..."
    export.add_argument("--combine", metavar="KIND", help=help)
    help = "of the adapters that are combined (equal)"
    export.add_argument("--weights", type=_numbers, default=(), metavar="W,W,...", help=help)
    help = "share of the numbers that ties, dare and magnitude_prune keep (0.5)"
    export.add_argument("--density", type=float, metavar="D", help=help)
    help = "of the weights: bf16, fp16, fp32, and q8_0 of GGUF alone (bf16)"
    export.add_argument("--dtype", choices=("bf16", "fp16", "fp32", "q8_0"), default="bf16", help=help)
    help = "of a run: merge into the `dequantized` weights, or the `original` ones; of an adapter: its base"
    export.add_argument("--base", metavar="BASE", help=help)
    export.add_argument("--quantize", choices=("4bit",), help="quantize the merged model again")
    help = "of an adapter, or several: whose rows it is proved on (embedded ones; the first run's)"
    export.add_argument("--recipe", metavar="RECIPE", help=help)
    export.add_argument("--accept-drift", action="store_true", help="write it even where the proof fails, and say so")
    export.add_argument("--overwrite", action="store_true", help="replace a folder that is not empty")
    export.add_argument("--push", metavar="REPO", help="upload it to this repository of the Hugging Face Hub too")
    export.add_argument("--public", action="store_true", help="with --push: for everyone to see")
    _add_set(export)

    chat = add("chat", "talk to a run, an adapter or a model, at a terminal or through pipes", _chat)
    chat.epilog = "Through pipes: a line in, a line out; a reply's own line breaks are written as \\n."
    _add_target(chat)

    generate = add("generate", "answer every row of a file", _generate)
    _add_target(generate)
    generate.add_argument("--input", type=Path, required=True, metavar="FILE", help="rows: the run's own, or a prompt")
    generate.add_argument("--output", type=Path, required=True, metavar="FILE", help="a new file, JSON lines")

    serve = add("serve", "answer over HTTP, as OpenAI's API does: runs of one base, or a model", _serve)
    serve.add_argument("targets", nargs="+", metavar="TARGET", help="runs or adapters of one base, or a model")
    serve.add_argument("--base", metavar="MODEL", help="their base, where it is elsewhere now")
    serve.add_argument("--host", default="127.0.0.1", help="where it listens (127.0.0.1: this machine alone)")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="8000; 0 takes a free one")
    help = "requests at once, with those that wait (512)"
    serve.add_argument("--concurrency", type=int, default=512, metavar="N", help=help)

    report = add("report", "draw the page of a run or a comparison again and print its table", _report)
    report.add_argument("run", metavar="RUN", help="a run's or comparison's folder, or its name under runs/")

    listing = add("ls", "list what there is, and what each can do", _ls)
    topics = ("methods", "tasks", "metrics", "recipes", "runs")
    listing.add_argument("topic", nargs="?", choices=topics, metavar="TOPIC", help=f"{', '.join(topics)}")

    init = add("init", "write a commented recipe to start from", _init)
    init.add_argument("task", nargs="?", default=_DEFAULT_TASK, metavar="TASK", help=f"a task ({_DEFAULT_TASK})")
    init.add_argument("--output", type=Path, metavar="FILE", help="where to write it (<task>.yaml)")

    add("schema", "print the JSON Schema of a recipe, for editors", _schema)
    add("doctor", "say what works on this machine, and how to get the rest", _doctor)
    return parser, verbs


def _add_debug(parser: argparse.ArgumentParser) -> None:
    help = "show the traceback of what went wrong"
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=help)


def _add_set(parser: argparse.ArgumentParser) -> None:
    help = "put another value into the recipe: `--set train.max_steps=50`; may be repeated"
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C", help=help)


def _numbers(text: str) -> tuple[float, ...]:
    """Of `0.7,0.3`."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"`{text}` is not numbers with commas between, as in 0.7,0.3") from None


def _add_target(parser: argparse.ArgumentParser) -> None:
    """What answers, and how it decodes."""
    parser.add_argument("target", metavar="TARGET", help="a run, an adapter's folder, or a model")
    parser.add_argument("--base", metavar="MODEL", help="the base of an adapter, where it is elsewhere now")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="longest reply (the run's own)")
    parser.add_argument("--temperature", type=float, metavar="T", help="draw replies; 0 takes the likeliest tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw among the likeliest of this share in all")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw among so many")
    parser.add_argument("--seed", type=int, metavar="N", help="of what is drawn")


def _run(options: argparse.Namespace) -> None:
    from inlay.tuner import recipe

    loaded = recipe.load(options.recipe, options.overrides)

    from inlay.tuner.run import run

    _show(run(loaded, output=options.output, again=options.again, command=options.command))


def _check(options: argparse.Namespace) -> int:
    from inlay.tuner import recipe

    if (options.recipe is None) == (options.explain is None):
        raise RequestError("`inlay check` takes a recipe, or --explain CODE")
    loaded = recipe.load(options.recipe, options.overrides) if options.recipe else None

    from inlay.tuner import check

    if loaded is None:
        print(check.explain(options.explain))
        return 0
    checked = check.check(loaded, rows=max(0, options.rows), timed=not options.no_timing)
    follow = f"next    inlay run {shlex.quote(options.recipe)}" if checked.sound else "next    mend what failed above"
    print(f"{checked.text}\n{follow}")
    return 0 if checked.sound else 1


def _eval(options: argparse.Namespace) -> None:
    from inlay.tuner import recipe

    loaded = recipe.load(options.recipe, options.overrides) if options.recipe else None

    from inlay.tuner.rescore import rescore

    _show(rescore(_named(options.target), recipe=loaded, overrides=options.overrides, base=options.base))


def _compare(options: argparse.Namespace) -> int:
    from inlay.tuner.comparison import ask

    folder = ask.answered(
        options.targets,
        methods=options.methods.split(",") if options.methods else None,
        seeds=options.seeds,
        overrides=options.overrides,
        output=options.output,
        again=options.again,
        command=options.command,
    )
    return ask.show(folder)


def _export(options: argparse.Namespace) -> None:
    from inlay.tuner import listing

    targets = tuple(listing.adapter_named(target) for target in options.targets)

    from inlay.tuner.export import Order, destination, export, push, told

    where = destination(options.push, public=options.public)

    alike = ("to", "dtype", "base", "recipe", "as_lora", "rank", "combine", "weights", "density")
    alike += ("accept_drift", "overwrite")
    order = Order(
        targets=targets,
        form=options.format or ("adapter" if options.as_lora else "merged"),
        four_bit=options.quantize == "4bit",
        overrides=tuple(options.overrides),
        **{name: getattr(options, name) for name in alike},
    )
    print(told(export(order)), flush=True)
    if where:
        print(push(order.to, where))


def _chat(options: argparse.Namespace) -> int:
    from inlay.tuner.serve.chat import chat

    answered = chat(_named(options.target), base=options.base, wishes=_wishes(options))
    return 0 if answered else 1


def _generate(options: argparse.Namespace) -> None:
    from inlay.tuner.serve.generate import generate

    print(
        generate(
            _named(options.target),
            input=options.input,
            output=options.output,
            base=options.base,
            wishes=_wishes(options),
        )
    )


def _serve(options: argparse.Namespace) -> None:
    from inlay.tuner.serve.server import serve

    names = [_named(target) for target in options.targets]
    serve(names, base=options.base, host=options.host, port=options.port, most=options.concurrency)


def _named(target: str) -> str:
    """The folder of the run of that name, or what was typed."""
    from inlay.tuner import listing

    return str(listing.run_named(target) or target)


def _wishes(options: argparse.Namespace) -> Wishes:
    from inlay.tuner.serve.decoding import Wishes

    return Wishes(options.max_new_tokens, options.temperature, options.top_p, options.top_k, options.seed)


def _report(options: argparse.Namespace) -> int | None:
    from inlay.tuner import listing

    compared = listing.comparison_named(options.run)
    if compared:
        from inlay.tuner.comparison import ask
        from inlay.tuner.comparison.page import write_pages

        write_pages(compared)
        return ask.show(compared)
    run = listing.find_run(options.run)

    from inlay.tuner.report import write_page

    write_page(run)
    _show(run)
    return None


def _show(run: Path) -> None:
    from inlay.tuner.report.terminal import print_table

    print_table(run)


def _ls(options: argparse.Namespace) -> None:
    from inlay.tuner import listing

    print(listing.listing(options.topic))


def _init(options: argparse.Namespace) -> None:
    from inlay.tuner import recipe
    from inlay.tuner.data import tasks

    if options.task not in tasks.names():
        close = difflib.get_close_matches(options.task, tasks.names(), n=1)
        help = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(tasks.names())}"
        raise RequestError(f"unknown task `{options.task}`", help=help)
    path = options.output or Path(f"{options.task}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(recipe.starter(options.task, str(path)))
    except FileExistsError:
        help = "nothing was written; name another file with `--output FILE`"
        raise RequestError(Problem("this file exists already", file=str(path), help=help)) from None
    except OSError as error:
        raise RequestError(Problem(f"cannot be written: {error.strerror}", file=str(path))) from error
    print(f"wrote {path}\nnext  inlay run {shlex.quote(str(path))}")


def _schema(options: argparse.Namespace) -> None:
    import json

    from inlay.tuner import recipe

    print(json.dumps(recipe.schema(), indent=2, ensure_ascii=False))


def _doctor(options: argparse.Namespace) -> int:
    from inlay.tuner import doctor

    text, healthy = doctor.examine()
    print(text)
    return 0 if healthy else 3
