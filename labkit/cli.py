"""The command line: ``labkit doctor``, ``run``, ``plan``, ``config``, ``claims``.

Exit codes: 0 all is well, 1 a lab failed or a claim does not hold, 2 bad input, 130 interrupted,
141 nobody reads the output any more.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from labkit import env


class _Parser(argparse.ArgumentParser):
    """Complains in one sentence, as everything here does; takes no flag for another."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise env.UserError(f"{message}; see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser("labkit", description="Tools of the course.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    p = commands.add_parser("doctor", help="say what this machine can do, with the cure for each gap")
    p.add_argument("--compile", action="store_true", help="compile DeepSpeed's CPU Adam now, once")
    p.set_defaults(do=_doctor)

    p = commands.add_parser("run", help="run a lab under the real `deepspeed` launcher",
                            description="Flags that are not listed here go to the lab's train.py.")
    p.add_argument("lab", help="such as lab01")
    p.add_argument("--ranks", default="auto", help="number of ranks; auto: one for each GPU, or 2")
    p.add_argument("--config", type=Path, help="DeepSpeed JSON instead of the lab's own")
    p.add_argument("--fill-auto", action="store_true",
                   help="put the defaults of transformers' Trainer where that file says \"auto\"")
    p.add_argument("--hostfile", type=Path, help="several machines: lines `host slots=N`")
    p.add_argument("--node-rank", type=int, help="this machine's number, when started by hand on each")
    p.add_argument("--master-addr", help="address of machine 0")
    p.add_argument("--master-port", type=int, help="port at which the ranks meet (default: a free one)")
    p.add_argument("--out", type=Path, help="new folder for the records (default: runs/LAB/TIME)")
    p.add_argument("--timeout", type=float,
                   help="end a run in which no rank has said anything for so many seconds (default: 300, and "
                   "more on a slow or busy machine)")
    p.add_argument("--meet", type=float, default=600.0,
                   help="seconds that hosts started by hand wait for each other (default: 600)")
    p.add_argument("--lab-help", action="store_true", help="show the lab's own flags")
    p.set_defaults(do=_run)

    p = commands.add_parser(
        "plan", help="memory, traffic and step time of a run, by formula",
        description="With --params: bytes of model states and traffic under ZeRO. With a shape: the "
        "quickest layouts that fit the cluster; whatever of the layout is given stays fixed.")
    p.add_argument("--params", type=float, help="number of parameters, such as 7.5e9")
    p.add_argument("--gpus", type=int, default=1, help="number of GPUs (default 1)")
    p.add_argument("--gpu-memory", type=float, help="memory of one GPU in GB, instead of the cluster's")
    p.add_argument("--stage", type=int, help="ZeRO stage, 0 to 3 (with --params, default 0)")
    shape = p.add_argument_group("shape of a GPT, instead of --params")
    for flag, words in (("layers", "number of layers"), ("hidden", "hidden size"),
                        ("heads", "attention heads"), ("vocab", "tokens in the vocabulary"),
                        ("context", "tokens in a sample")):
        shape.add_argument(f"--{flag}", type=int, help=words)
    shape.add_argument("--batch", type=int, help="samples in one optimizer step")
    shape.add_argument("--cluster", help="a100 (80 GB, default), h100 or h200: "
                       "nodes of 8 with NVLink, InfiniBand between them")
    layout = p.add_argument_group("layout, searched where not given")
    for flag, words in (("tp", "tensor-parallel ranks"), ("pp", "pipeline stages"),
                        ("dp", "data-parallel ranks"), ("micro", "samples in a micro-batch"),
                        ("interleave", "pieces of the model on each pipeline rank")):
        layout.add_argument(f"--{flag}", type=int, help=words)
    layout.add_argument("--recompute", help="activations: none, selective or full")
    p.set_defaults(do=_plan)

    p = commands.add_parser(
        "config", help="explain a DeepSpeed configuration, line by line",
        description="Checks the file, says what each line does and which section of the course treats it, "
        "what its model states take in memory (--params), and prints it as DeepSpeed understands it.")
    p.add_argument("file", type=Path, help="a DeepSpeed JSON file")
    p.add_argument("--params", type=float, help="number of parameters, such as 7e9: adds a table of memory")
    p.add_argument("--gpus", type=int, help="number of GPUs for that table (default: --ranks)")
    p.add_argument("--ranks", type=int, help="number of ranks for the batch (default: --gpus, else 1)")
    p.add_argument("--fill-auto", action="store_true",
                   help="put the defaults of transformers' Trainer where the file says \"auto\"")
    p.add_argument("--try", action="store_true", dest="rehearse",
                   help="make an engine with it first, of a small model on one rank, and take two steps")
    p.add_argument("--json", action="store_true", help="print the understood file only, as JSON")
    p.set_defaults(do=_config)

    p = commands.add_parser("claims", help="list every claim: predicted, measured, verdict")
    p.add_argument("notebooks", nargs="*", type=Path, help="default: all chapters")
    p.set_defaults(do=_claims)
    return top


def _doctor(args: argparse.Namespace) -> int:
    if args.compile:
        from labkit import ops

        ops.prepare()
    findings = env.doctor()
    marks = {True: "ok", None: "note", False: "STOP"}
    for finding in findings:
        cure = f"; {finding.cure}" if finding.cure else ""
        head = f"{marks[finding.ok]:5}{finding.topic:15}"
        print(textwrap.fill(finding.says + cure, 96, initial_indent=head, subsequent_indent=" " * 20))
    if any(finding.ok is False for finding in findings):
        raise env.UserError("this machine cannot run the course yet: see the lines marked STOP")
    return 0


def _run(args: argparse.Namespace) -> int:
    from labkit import launch

    if args.lab_help:
        print(launch.lab_help(args.lab))
        return 0
    result = launch.run(args.lab, ranks=args.ranks, args=args.rest, config=args.config,
                        hostfile=args.hostfile, node_rank=args.node_rank, out=args.out,
                        master_addr=args.master_addr, master_port=args.master_port,
                        timeout=args.timeout, meet=args.meet, fill_auto=args.fill_auto)
    losses, report = result.losses, launch.report(result)
    if report:
        print(report)
    elif losses:
        here = "" if len(result.ranks) == result.info.ranks else f" ({len(result.ranks)} recorded here)"
        print(f"{result.info.lab}, {result.info.ranks} ranks{here} on {result.info.device}: loss "
              f"{losses[0]:.4f} → {losses[-1]:.4f} in {len(losses)} steps, "
              f"{result.tokens_per_second:,.0f} tokens/s")
    print(f"records: {result.folder}")
    return 0


def _plan(args: argparse.Namespace) -> int:
    from labkit import plan

    shape = ("layers", "hidden", "heads", "vocab", "context", "batch")
    layout = ("tp", "pp", "dp", "micro", "interleave", "recompute")
    given = [name for name in (*shape, *layout, "cluster") if getattr(args, name) is not None]
    if args.params is not None and given:
        raise env.UserError(f"--params is planned without --{given[0]}: give one or the other")
    missing = [f"--{name}" for name in shape if getattr(args, name) is None]
    if args.params is None and missing:
        raise env.UserError(f"give --params, or a whole shape and batch: missing {', '.join(missing)}")
    try:
        if args.params is None:
            _plan_shape(args, [name for name in given if name in layout])
        else:
            made = plan.plan(args.params, args.gpus, args.stage or 0, gpu_memory_gb=args.gpu_memory)
            for what, value in made.rows():
                print(f"{what:15}{value}")
    except ValueError as error:
        raise env.UserError(f"cannot plan this: {error}") from None
    return 0


def _plan_shape(args: argparse.Namespace, fixed: list[str]) -> None:
    from dataclasses import replace

    from labkit import planner

    name = args.cluster or "a100"
    if name not in planner.PRESETS:
        raise env.UserError(f"no cluster {name!r}: choose from {', '.join(planner.PRESETS)}")
    shape = planner.Shape(args.layers, args.hidden, args.heads, args.vocab, args.context)
    cluster = replace(planner.PRESETS[name], gpus=args.gpus)
    if args.gpu_memory is not None:
        if not args.gpu_memory > 0:
            raise env.UserError(f"--gpu-memory is {args.gpu_memory}: give a number of GB above 0")
        cluster = replace(cluster, memory=args.gpu_memory * planner.GB)
    fixed = [*fixed, "stage"] if args.stage is not None else fixed
    found = planner.search(shape, cluster, args.batch, **{flag: getattr(args, flag) for flag in fixed})
    print(f"{shape.num_params / planner.GB:,.3g} B parameters on {args.gpus:,} × {name}, "
          f"batch {args.batch:,}, every rate at {cluster.efficiency:.0%} of its nameplate")
    print(planner.table(found))
    print(planner.verdict(found[0]))


def _filled(config: dict[str, Any], ranks: int) -> dict[str, Any]:
    """``config`` with numbers for each "auto"; says which, where they do not disturb the output."""
    from labkit import config_autos

    config, values = config_autos.fill(config, ranks)
    for saying in config_autos.sayings(values):
        print(f"filled in: {saying}", file=sys.stderr)
    return config


def _config(args: argparse.Namespace) -> int:
    import json

    from labkit import configs, explain, ops, rehearsal

    for flag in ("params", "gpus", "ranks"):
        value = getattr(args, flag)
        if value is not None and not 1 <= value < float("inf"):
            raise env.UserError(f"--{flag} is {value:g}: give a number of at least 1")
    ranks, gpus = (args.ranks or args.gpus or 1), (args.gpus or args.ranks or 1)
    config = configs.load(args.file)
    if args.fill_auto:
        config = _filled(config, ranks)
    here = explain.check(config, ranks, where=args.file.name)
    if args.rehearse and not here:
        ops.build(env.needed_ops(config), asked=args.file.name, say=lambda text: print(text, file=sys.stderr))
        rehearsal.rehearse(config, where=args.file.name, on_gpus=env.accelerators() > 0)
    if args.json:
        print(json.dumps(explain.understand(config, ranks).config, indent=2, ensure_ascii=False))
    else:
        print(explain.report(config, str(args.file), ranks, num_params=args.params, gpus=gpus, here=here))
    return 0


def _claims(args: argparse.Namespace) -> int:
    from labkit import form
    from labkit.claims import read_notebook

    broken = 0
    for path in args.notebooks or sorted((env.ROOT / "chapters").glob("*.ipynb")):
        try:
            found = read_notebook(path)
        except OSError as error:
            raise env.UserError(f"cannot read the notebook {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise env.UserError(f"{path} is not a notebook: give the path of a chapter") from None
        deep = {claim["id"] for claim in form.claims(form.read(path).depth)}
        for where, claims in (("", [claim for claim in found if claim.id not in deep]),
                              (" in its depth", [claim for claim in found if claim.id in deep])):
            if claims or not where:
                print(f"{path.name}: {len(claims)} claims{where}")
            for claim in claims:
                broken += not claim.holds
                print("  " + claim.text())
    return 1 if broken else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code; every error is one clear message on stderr."""
    if not (sys.argv[1:] if arguments is None else arguments):
        parser().print_help()
        return 2
    try:
        args, rest = parser().parse_known_args(arguments)
        if rest and args.command != "run":
            raise env.UserError(f"unknown argument {rest[0]!r}; see `labkit {args.command} --help`")
        args.rest = rest
        status = args.do(args)
        sys.stdout.flush()
        return status
    except env.UserError as error:
        print(f"labkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("labkit: interrupted; nothing is left running", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as in `labkit claims | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a shell says of a program that SIGPIPE ended
    except RuntimeError as error:
        if type(error).__name__ != "LabFailed":  # importing launch just for this takes seconds
            raise
        print(f"labkit: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
