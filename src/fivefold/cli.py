"""The command line: thin verbs over the library; errors a user can cause become one message and exit code 2."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fivefold import __version__
from fivefold.errors import FivefoldError

if TYPE_CHECKING:
    from fivefold.recipe import Recipe

    Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

log = logging.getLogger("fivefold")

RECIPE_ENDINGS = {".yaml", ".yml"}

UNTELLING = ("train", "data", "all")
"""File names that don't say what is in the file."""

PRESET_NAMES = ("fast", "balanced", "best")

WAYS = ("factors", "exact", "rank")
MERGED = ("fp32", "bf16", "fp16")

INDEXES = ("auto", "flat", "hnsw", "ivfpq")

SHAPES = ("narratives", "tweets", "preferences", "products", "topics")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO, force=True)
    try:
        command: Callable[[argparse.Namespace], None] = options.command
        command(options)
    except FivefoldError as error:
        print(f"fivefold: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fivefold: stopped; the same command continues where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fivefold", description="Labelled text in, the best classifier you can deploy out."
    )
    parser.add_argument("--version", action="version", version=f"fivefold {__version__}")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument(
        "source", metavar="RECIPE_OR_DATA", help="a recipe (.yaml), a data file, hf://id or demo://shape"
    )
    changes = argparse.ArgumentParser(add_help=False)
    changes.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe, such as model.C=2; a key set twice collects a list",
    )
    changes.add_argument(
        "--preset",
        choices=PRESET_NAMES,
        metavar="NAME",
        help="models to fit, where the recipe names none; balanced and best are ensembles",
    )

    _add_data_verbs(verbs, source, changes)
    _add_run_verbs(verbs)
    _add_demo(verbs)
    return parser


def _add_data_verbs(verbs: Verbs, source: argparse.ArgumentParser, changes: argparse.ArgumentParser) -> None:
    """What starts from a recipe or a data file."""
    init = verbs.add_parser("init", parents=[changes], help="write the recipe inferred from a data file")
    init.add_argument("data", metavar="DATA", help="a labelled file, hf://id or demo://shape")
    init.add_argument("--out", type=Path, metavar="FILE", help="write the recipe here instead of printing it")
    init.set_defaults(command=_init)

    check = verbs.add_parser("check", parents=[source, changes], help="check a recipe and its data")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    check.set_defaults(command=_check)

    fit = verbs.add_parser("fit", parents=[source, changes], help="fit all folds, decide, evaluate and report")
    fit.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder; a killed run continues")
    fit.add_argument("--overwrite", action="store_true", help="delete the run that is there first")
    fit.add_argument(
        "--folds-at-once",
        type=_positive,
        default=1,
        metavar="N",
        help="fit N folds at a time, each in a process with its share of the cores, default: 1",
    )
    fit.set_defaults(command=_fit)

    pretrain = verbs.add_parser(
        "pretrain", parents=[source, changes], help="pretrain a recipe's backbone on its texts, without labels"
    )
    pretrain.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the folder to write; a killed pretraining continues",
    )
    pretrain.add_argument("--overwrite", action="store_true", help="delete the backbone that is there first")
    pretrain.set_defaults(command=_pretrain)
    _add_enrich(verbs)


def _add_enrich(verbs: Verbs) -> None:
    enrich = verbs.add_parser(
        "enrich", help="add what a table's nearest neighbours in a catalogue say, without fitting"
    )
    enrich.add_argument("data", metavar="DATA", help="a data file, hf://id or demo://shape")
    enrich.add_argument("--catalogue", required=True, metavar="FILE", help="rows to search")
    enrich.add_argument(
        "--match",
        action="append",
        required=True,
        metavar="COLUMN",
        help="of the catalogue: what is compared; repeatable",
    )
    enrich.add_argument("--take", required=True, metavar="COLUMN", help="of the catalogue: the text that is added")
    enrich.add_argument("--out", type=Path, required=True, metavar="FILE", help=".csv, .tsv, .jsonl or .parquet")
    enrich.add_argument(
        "--query", action="append", metavar="COLUMN", help="of DATA: what is compared; repeatable; default: its texts"
    )
    enrich.add_argument("--neighbours", type=_positive, metavar="K", help="of a row at most, default: 5")
    enrich.add_argument("--similarity", type=float, metavar="S", help="cosine that each must have, default: 0.5")
    enrich.add_argument("--backbone", metavar="NAME", help="hub id or folder of a sentence encoder, default: MiniLM")
    enrich.add_argument("--index", choices=INDEXES, help="default: auto, by the size of the catalogue")
    enrich.add_argument("--field", metavar="NAME", help="of the column that is added, default: neighbours")
    enrich.set_defaults(command=_enrich)


def _add_run_verbs(verbs: Verbs) -> None:
    """What starts from a run."""
    predict = verbs.add_parser("predict", help="predict a file with a finished run")
    predict.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished fit")
    predict.add_argument("data", metavar="DATA", help="rows with the text columns that were trained on")
    predict.add_argument("--out", type=Path, required=True, metavar="FILE", help=".csv, .tsv, .jsonl or .parquet")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--probabilities", action="store_true", help="also write a probability a label or class")
    form.add_argument("--submission", action="store_true", help="write the label columns as the training file had them")
    predict.set_defaults(command=_predict)

    evaluate = verbs.add_parser("evaluate", help="figures of a run, out of fold or on a labelled file")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished fit")
    evaluate.add_argument("data", nargs="?", metavar="DATA", help="a labelled file; left out: the out-of-fold rows")
    evaluate.add_argument("--json", action="store_true", help="print the figures as JSON")
    evaluate.set_defaults(command=_evaluate)

    compare = verbs.add_parser("compare", help="paired difference of two runs on the same rows")
    compare.add_argument("first", type=Path, metavar="RUN_A", help="the folder of a finished fit")
    compare.add_argument("second", type=Path, metavar="RUN_B", help="another on the same rows")
    compare.add_argument("--metric", help="default: the metric of RUN_A")
    compare.set_defaults(command=_compare)

    average = verbs.add_parser("average", help="make one model of the adapters of a run's folds")
    average.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished fit of adapters")
    average.add_argument(
        "data", nargs="?", metavar="DATA", help="a labelled file that no fold saw; left out: some training rows"
    )
    average.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder to write")
    average.add_argument("--way", choices=WAYS, help="factors, exact or rank; default: the best on these rows")
    average.add_argument("--rank", type=_positive, metavar="R", help="of the way 'rank'; default: the adapters'")
    average.add_argument("--merge", choices=MERGED, help="merge it into the backbone, held so")
    average.add_argument("--accept", action="store_true", help="keep it though it is worse than the folds' ensemble")
    average.add_argument("--overwrite", action="store_true", help="delete the run that is there first")
    average.set_defaults(command=_average)

    generate = verbs.add_parser("generate", help="write rows after examples of a run's, labelled by its models")
    generate.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished fit")
    generate.add_argument("--backbone", required=True, metavar="NAME", help="hub id or folder of a language model")
    generate.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the folder to write")
    generate.add_argument("--count", type=_positive, required=True, metavar="N", help="records to write")
    generate.add_argument("--shots", type=_positive, default=4, metavar="K", help="rows each follows, default: 4")
    generate.add_argument("--instruction", metavar="TEXT", help="words before the examples, default: to write another")
    generate.add_argument("--tokens", type=_positive, default=256, metavar="N", help="of a record, default: 256")
    generate.add_argument("--temperature", type=float, default=0.9, metavar="T", help="default: 0.9")
    generate.add_argument("--top-p", type=float, default=0.95, metavar="P", help="default: 0.95")
    generate.add_argument(
        "--chat", choices=("auto", "yes", "no"), default="auto", help="use the model's chat template, default: auto"
    )
    generate.add_argument("--weights", choices=(*MERGED, "int8", "nf4"), default="fp32", help="default: fp32")
    generate.add_argument("--seed", type=_natural, default=0, help="default: 0")
    generate.set_defaults(command=_generate)

    report = verbs.add_parser("report", help="write a run's report and model card again")
    report.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished fit")
    report.set_defaults(command=_report)


def _add_demo(verbs: Verbs) -> None:
    demo = verbs.add_parser("demo", help="make look-alike data of a published contest and fit it")
    demo.add_argument("shape", nargs="?", choices=SHAPES, default="tweets", help="default: tweets")
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER", help="default: runs/demo")
    demo.add_argument("--rows", type=int, default=2000, help="training rows, default: 2000")
    demo.add_argument("--seed", type=_natural, default=0, help="of the data, default: 0")
    demo.add_argument("--data-only", action="store_true", help="write the files and stop")
    demo.set_defaults(command=_demo)


def _positive(text: str) -> int:
    """A whole number from 1 on."""
    return _natural(text, lowest=1)


def _natural(text: str, lowest: int = 0) -> int:
    """A whole number from 0 on, or from `lowest`."""
    number = int(text)
    if number < lowest:
        raise argparse.ArgumentTypeError(f"must be {lowest} or more")
    return number


def _recipe(source: str, changes: Sequence[str], preset: str | None = None) -> Recipe:
    """The recipe at `source`, or an empty one for the data there; what it leaves out is inferred later."""
    from fivefold.recipe import build_recipe, load_recipe
    from fivefold.recipe.presets import PRESETS

    if preset is not None:
        log.info("Preset %s: %s. Needs %s.", preset, PRESETS[preset].meaning, PRESETS[preset].needs)
    if Path(source).suffix in RECIPE_ENDINGS:
        return load_recipe(Path(source), changes, preset=preset)
    if any(change.startswith("data.train=") for change in changes):
        raise FivefoldError(
            f"Training data is named twice: {source}, and --set data.train.",
            next_step="name a recipe first, or leave out --set data.train",
        )
    return build_recipe({"name": _name(source), "data": {"train": source}}, changes, preset=preset)


def _name(source: str) -> str:
    """What to call a fit of a data file: its name, or its folder's where the name says nothing."""
    stem = Path(source).name.split(".")[0]
    return (Path(source).resolve().parent.name if stem in UNTELLING else stem) or "fivefold"


def _init(options: argparse.Namespace) -> None:
    from fivefold.pipeline.inspect import describe_recipe
    from fivefold.pipeline.store import write_text, writing

    text = describe_recipe(_recipe(options.data, options.set, options.preset))
    if options.out is None:
        print(text, end="")
        return
    with writing(options.out.parent):
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, text)
    print(f"Recipe: {options.out}")


def _check(options: argparse.Namespace) -> None:
    import json

    recipe = _recipe(options.source, options.set, options.preset)
    if recipe.data.train is None:
        print(f"{options.source}: the recipe is sound. It names no data.train, so no data was checked.")
        return
    from fivefold.pipeline.inspect import check_data

    found = check_data(recipe)
    print(json.dumps(found.to_json(), indent=2, ensure_ascii=False) if options.json else found.render())
    if not found.ok:
        raise FivefoldError("The data can't be used as it is.", next_step="mend the errors above and check again")


def _fit(options: argparse.Namespace) -> None:
    from fivefold.pipeline.fit import fit

    recipe = _recipe(options.source, options.set, options.preset)
    run = fit(recipe, out=options.out, overwrite=options.overwrite, folds_at_once=options.folds_at_once)
    _print_outcome(run.folder)


def _pretrain(options: argparse.Namespace) -> None:
    from fivefold.pipeline.pretrain import pretrain, replaced_keys

    recipe = _recipe(options.source, options.set, options.preset)
    folder = pretrain(recipe, out=options.out, overwrite=options.overwrite)
    print(f"Backbone: {folder}")
    changes = [f"model.backbone={folder}", *(f"{key}=null" for key in replaced_keys(recipe))]
    print("To use it: fivefold fit RECIPE " + " ".join(f"--set {change}" for change in changes) + " --out RUN")


def _enrich(options: argparse.Namespace) -> None:
    from fivefold.pipeline.enrich import enrich_file, render

    names = ("catalogue", "match", "take", "query", "neighbours", "similarity", "backbone", "index", "field")
    keys = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    print(render(enrich_file(options.data, options.out, keys)))
    print(f"Table: {options.out}")


def _predict(options: argparse.Namespace) -> None:
    from fivefold.pipeline.predict import FORMS, predict_file

    form = "submission" if options.submission else "probabilities" if options.probabilities else "labels"
    rows = predict_file(options.run, options.data, options.out, FORMS[form])
    print(f"Predictions of {rows:,} rows: {options.out}")


def _evaluate(options: argparse.Namespace) -> None:
    import json

    from fivefold.pipeline.compare import evaluate_run, render

    evaluation = evaluate_run(options.run, options.data)
    print(json.dumps(evaluation.to_json(), indent=2) if options.json else render(evaluation))


def _compare(options: argparse.Namespace) -> None:
    from fivefold.pipeline.compare import compare_runs, render_difference

    print(render_difference(compare_runs(options.first, options.second, options.metric)))


def _average(options: argparse.Namespace) -> None:
    from fivefold.pipeline.average import average_run, render

    found = average_run(
        options.run,
        options.out,
        options.data,
        way=options.way,
        rank=options.rank,
        weights=options.merge,
        accept=options.accept,
        overwrite=options.overwrite,
    )
    print(render(found))
    print(f"Run: {found.folder}")


def _generate(options: argparse.Namespace) -> None:
    from fivefold.models.families import family_class
    from fivefold.pipeline.generate import FOR_FOLD, ROWS, generate

    family_class("generator")  # names the extra where its packages are missing
    from fivefold.models.generator.sampling import Sampler

    names = ("backbone", "instruction", "tokens", "temperature", "top_p", "chat", "weights")
    asked = {name: getattr(options, name) for name in names}
    write, numbers = Sampler(**asked).write, {name: getattr(options, name) for name in ("count", "shots", "seed")}
    found = generate(options.run, options.out, write, **numbers, settings=asked)
    print(f"Records: {found.records:,}, in {found.rows:,} rows; left out {found.dropped:,}")
    print(
        f"To use them: --set data.extra={found.folder / ROWS} --set data.extra_fold={FOR_FOLD} "
        f"--set folds.reuse={options.run}"
    )


def _report(options: argparse.Namespace) -> None:
    from fivefold.pipeline.publish import publish

    print(f"Report: {publish(options.run)}")


def _demo(options: argparse.Namespace) -> None:
    from fivefold.data.demo import write_demo
    from fivefold.pipeline.store import writing

    with writing(options.out):
        paths = write_demo(options.shape, options.out / "data", options.rows, options.seed)
    print("Data: " + ", ".join(str(path) for path in paths.values()))
    if options.data_only:
        return
    from fivefold.pipeline.fit import fit

    run = fit(_recipe(str(paths["train"]), [f"data.test={paths['test']}"]), out=options.out / "run")
    _print_outcome(run.folder)


def _print_outcome(folder: Path) -> None:
    from fivefold.pipeline.compare import evaluate_run, render

    print(render(evaluate_run(folder, None)))
    print(f"Report: {folder / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
