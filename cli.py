"""The `linearch` command: look at runs, take architectures home. Arguments in, tables out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .launch import exit_on_error

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Look at searches and take their architectures home. Start one with launch-search.",
)
bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure this machine.")
app.add_typer(bench, name="bench")

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="LINEARCH_STORE",
        help="Database file or URL (runs/linearch.db).",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
DeviceOption = Annotated[
    Literal["cpu", "cuda"] | None, typer.Option("--device", help="Where it is judged (cpu).")
]
UnsafeOption = Annotated[
    bool,
    typer.Option("--unsafe-no-sandbox", help="Run the code although it cannot be contained."),
]
Which = Annotated[str, typer.Argument(metavar="ID", help="An id, the start of one, or a name.")]


@app.command()
def leaderboard(
    run: Annotated[str | None, typer.Argument(help="A run's id; by default the newest.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Unscored architectures too, with the reason.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """The architectures of a run, best first."""
    from dataclasses import asdict

    from .agents.cautions import cautions
    from .agents.standings import noise_floors
    from .api import open_run
    from .tables import leaderboard_table, print_json, print_plain, terminal, unscored_table

    opened, found = open_run(run, store=store)
    with opened:
        rows = opened.queries.leaderboard(found.id)
        if as_json:
            print_json([asdict(row) for row in rows])
            return
        console = terminal()
        console.print(leaderboard_table(rows, noise_floors(opened, found.id), console.width))
        for line in cautions(opened, found.id):
            print_plain(console, line)
        if everything:
            console.print(unscored_table(rows))


@app.command()
def runs(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """All runs of a store, newest first."""
    from dataclasses import asdict

    from .db import Store
    from .tables import print_json, runs_table, terminal

    with Store.open(store, create=False) as opened:
        found = opened.runs()
        if as_json:
            print_json([asdict(row) for row in found])
            return
        funnels = [opened.queries.funnel(row.id) for row in found]
        terminal().print(runs_table(found, funnels))


@app.command()
def report(
    run: Annotated[str | None, typer.Argument(help="A run's id; by default the newest.")] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="JSON of an earlier report, instead of a run.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """A run as one document: Markdown, or its facts as JSON to keep beside it."""
    from .api import open_run
    from .report import facts, markdown, read_facts
    from .tables import print_json

    if from_file is not None:
        found = read_facts(from_file)
    else:
        opened, row = open_run(run, store=store)
        with opened:
            found = facts(opened, row)
    print_json(found) if as_json else print(markdown(found))


@app.command()
def show(which: Which, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """One architecture: gates, trials, lineage and code. Renders the code, never runs it."""
    from dataclasses import asdict

    from .db import Store
    from .tables import print_detail, print_json, terminal

    with Store.open(store, create=False) as opened:
        detail = opened.queries.architecture(which)
        print_json(asdict(detail)) if as_json else print_detail(detail, terminal())


@app.command()
def replay(
    which: Which,
    verify: Annotated[
        bool, typer.Option("--verify", help="Train again with the stored seed and compare.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """How to load an architecture, or (--verify) whether its numbers can be had again.

    Of a trial's id, that trial's: bits per byte, or a task's right answers. Exit code 0 if they
    were: equal to 1e-6 on the same kind of machine, else bits per byte within the noise floor.
    """
    from dataclasses import asdict

    from .agents.verification import verify_architecture
    from .tables import print_json, print_replay_hint, print_verification

    if not verify:
        print_replay_hint(which, store)
        return
    verification = verify_architecture(which, store=store)
    print_json(asdict(verification)) if as_json else print_verification(verification)
    raise typer.Exit(0 if verification.is_reproduced else 1)


@app.command()
def verify(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Whose best; the newest run if left out.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ID", help="These instead of the best; may be repeated."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best.")] = 3,
    seeds: Annotated[int, typer.Option(min=2, help="Fresh seeds of each, after a first.")] = 5,
    scale: Annotated[int, typer.Option(min=1, help="Models so many times as wide.")] = 2,
    suite: Annotated[Literal["slice", "full"], typer.Option(help="The tasks they get.")] = "slice",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.SUB=VALUE", help="One setting; may be repeated."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train finalists again: larger, from several seeds, on more tasks and a shard not seen yet.

    A run of its own, which launch-search --resume continues. Exit codes are launch-search's.
    """
    from .agents.finals import Finals, run_finals
    from .config import parse_setting
    from .progress import progress_for
    from .tables import print_outcome, terminal

    wanted = Finals(
        run=run,
        which=tuple(only or ()),
        store=store,
        top=top,
        seeds=seeds,
        scale=scale,
        suite=suite,
        settings=dict(parse_setting(pair) for pair in settings or ()),
    )
    console = terminal(stderr=as_json)
    with progress_for(console, plain=as_json) as observer:
        outcome = run_finals(wanted, observer)
    print_outcome(outcome, console, as_json=as_json)
    raise typer.Exit(outcome.exit_code)


@app.command()
def export(
    which: Which,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to write into.")],
    kind: Annotated[
        Literal["module"], typer.Option("--format", help="module: an importable package.")
    ] = "module",
    weights: Annotated[
        bool, typer.Option(help="With the trained weights, if there are any.")
    ] = True,
    store: StoreOption = None,
) -> None:
    """Write an architecture as a package that needs torch and linearch.kernels alone."""
    from .api import export_architecture

    assert kind == "module"
    package = export_architecture(which, to, weights=weights, store=store)
    print(f"wrote {package}")
    print(
        f"try   cd {package.parent} && python -c 'import {package.name}; "
        f"print({package.name}.load_model())'"
    )


@app.command()
def audit(
    target: Annotated[
        str, typer.Argument(metavar="FILE|ID|NAME", help="A source file, an id, or a name.")
    ],
    device: DeviceOption = None,
    profile: Annotated[
        str | None, typer.Option(help="The sizes to judge at; by default the run's, else cpu.")
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="End the quarantine of what passes.")
    ] = False,
    unsafe: UnsafeOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge any mixer whole: every gate, with the evidence. Exit code 0 sound, 1 unsound.

    Takes a file in this package's convention (class Mixer) or in ASI-Arch's (class DeltaNet), an
    architecture of the store, or a baseline's name.
    """
    from .agents.auditing import audit_target, check_releasable, find_target
    from .audit_progress import busy
    from .audit_tables import print_audit
    from .db import Store
    from .tables import print_json, terminal

    found = find_target(target, store=store, profile=profile, device=device, unsafe=unsafe)
    if release:
        check_releasable(found, profile)
    with busy(f"auditing {found.name} on {found.device}"):
        audited = audit_target(found)
    is_released = release and audited.is_sound
    if is_released:
        assert found.row is not None
        with Store.open(store, create=False) as opened:
            opened.release(found.row.id)
    if as_json:
        print_json({**audited.as_dict(), "released": is_released})
    else:
        print_audit(audited, terminal())
        if is_released:
            print(f"{found.name} is released from quarantine.")
    raise typer.Exit(0 if audited.is_sound else 1)


@app.command("import-asi-arch")
def import_asi_arch(
    file: Annotated[Path, typer.Argument(help="A gallery: a JSON list of name and program.")],
    audited: Annotated[bool, typer.Option("--audit/--no-audit", help="Judge each whole.")] = True,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Audits at once.")] = 1,
    device: DeviceOption = None,
    unsafe: UnsafeOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a gallery of ASI-Arch's into the store as a run of its own, and audit it."""
    from .agents.gallery import run_import
    from .audit_progress import counted
    from .audit_tables import import_as_dict, print_import
    from .tables import print_json, terminal

    with counted() as step:
        outcome = run_import(
            file,
            store=store,
            audited=audited,
            workers=workers,
            device=device,
            unsafe=unsafe,
            step=step,
        )
    if as_json:
        print_json(import_as_dict(outcome))
    else:
        print_import(outcome, terminal())
    raise typer.Exit(130 if outcome.state == "interrupted" else 0)


@app.command()
def dashboard(
    store: StoreOption = None,
    port: Annotated[int, typer.Option(help="On this machine only (127.0.0.1).")] = 8501,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = False,
) -> None:
    """The live leaderboard in a browser; read-only, on finished and running searches."""
    from .dashboard.serve import serve

    raise typer.Exit(serve(store=store, port=port, open_browser=browser))


@app.command()
def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """What this machine offers a search, and what is missing. Exit code 4 if one cannot run."""
    from .doctor import examine
    from .tables import print_findings, print_json

    findings = examine(store)
    if as_json:
        print_json([finding.__dict__ for finding in findings])
    else:
        print_findings(findings)
    raise typer.Exit(0 if all(finding.is_ok for finding in findings) else 4)


@bench.command("kernels")
def bench_kernels(
    peer: Annotated[
        Literal["fla"] | None, typer.Option(help="Time flash-linear-attention beside it.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="B,T,H,K", help="May be repeated.")
    ] = None,
    operation: Annotated[
        list[str] | None, typer.Option(help='How a name begins, "decay"; may be repeated.')
    ] = None,
    form: Annotated[
        Literal["naive", "chunked", "triton"] | None, typer.Option(help="What a call takes itself.")
    ] = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Times of every operation, forward and backward, beside floors, memory and a peer's."""
    from .bench import run_kernels

    run_kernels(
        peer=peer == "fla",
        shapes=shape or [],
        operations=operation or [],
        form=form,
        device=device,
        as_json=as_json,
    )


@bench.command("first")
def bench_first(
    shape: Annotated[
        list[str] | None, typer.Option(metavar="B,T,H,K", help="May be repeated.")
    ] = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(help='How a name begins, "decay"; the recurrences by default; repeatable.'),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Times of an operation's first step on this GPU, with no kernel compiled and with all."""
    from .bench import run_first

    run_first(shapes=shape or [], operations=operation or [], as_json=as_json)


@bench.command("warm")
def bench_warm(
    arch: Annotated[int, typer.Option(help="Compute capability, 90 for Hopper.")] = 90,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one a core.")
    ] = None,
    operation: Annotated[
        list[str] | None, typer.Option(help='How a case begins, "decay scalar, 64"; repeatable.')
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compile the Triton kernels into TRITON_CACHE_DIR, with no GPU. Exit code 1 if one failed."""
    from .bench import run_warm

    done = run_warm(arch=arch, jobs=jobs, operations=operation or [], as_json=as_json)
    raise typer.Exit(0 if done else 1)


@bench.command("tune")
def bench_tune(
    operation: Annotated[
        list[str] | None,
        typer.Option(help='How a recurrence begins, "decay scalar"; may be repeated.'),
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="B,T,H,K", help="May be repeated.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that compile; by default one a core.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put what is faster into the table of this package.")
    ] = False,
) -> None:
    """Try other configurations of the recurrences' kernels on this GPU, each checked and timed."""
    from .bench_tune import run_tune

    run_tune(operations=operation or [], shapes=shape or [], jobs=jobs, write=write)


@bench.command("train")
def bench_train(
    size: Annotated[
        list[str] | None, typer.Option(help="search, 1m, 20m or 340m; may be repeated.")
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="A baseline's name; may be repeated.")
    ] = None,
    at_once: Annotated[
        list[int] | None, typer.Option(min=1, help="Trainings at once; may be repeated.")
    ] = None,
    mps: Annotated[
        bool, typer.Option("--mps", help="These share the GPU under NVIDIA's MPS.")
    ] = False,
    peer: Annotated[
        Literal["fla"] | None, typer.Option(help="Train flash-linear-attention's models too.")
    ] = None,
    graph: Annotated[
        bool, typer.Option(help="On a GPU, a step as one CUDA graph where it can be one.")
    ] = True,
    form: Annotated[
        Literal["naive", "chunked", "triton"] | None, typer.Option(help="What kernels take.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of training, each.")] = 3.0,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """How fast whole models train: tokens a second, memory, the time to the first step."""
    from .bench_train import TrainBench, run_train

    asked = TrainBench(
        sizes=tuple(size or ()),
        baselines=tuple(baseline or ()),
        at_once=tuple(at_once or ()),
        device=device,
        seconds=seconds,
        records=graph,
        peer=peer == "fla",
        mps=mps,
        form=form,
    )
    run_train(asked, as_json=as_json)


def main() -> None:
    """Entry point: an error of ours becomes one sentence and its exit code."""
    with exit_on_error():
        app(prog_name="linearch")


if __name__ == "__main__":
    main()
