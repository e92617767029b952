"""The `launch-search` command: arguments in, a search, a leaderboard out."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import LinearchError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_Store = Annotated[
    str | None,
    typer.Option(
        envvar="LINEARCH_STORE", help="Database file or URL; by default runs/linearch.db."
    ),
]
_Profile = Annotated[
    str | None,
    typer.Option(help="cpu, gpu, baselines, tasks or asi-arch; gpu where there is one, else cpu."),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.SUB=VALUE", help="One setting; may be repeated."),
]
_Mixers = Annotated[
    list[Path] | None,
    typer.Option(
        "--mixer", metavar="FILE", help="Measure this file's mixer instead; may be repeated."
    ),
]
_Unsafe = Annotated[
    bool,
    typer.Option("--unsafe-no-sandbox", help="Run candidates although nothing confines them here."),
]


@app.command()
def launch(
    config: Annotated[Path | None, typer.Option(help="TOML file laid over the profile.")] = None,
    profile: _Profile = None,
    settings: _Settings = None,
    store: _Store = None,
    proposer: Annotated[str | None, typer.Option(help="grammar, random or llm.")] = None,
    mixers: _Mixers = None,
    max_candidates: Annotated[int | None, typer.Option(help="Sound candidates to train.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Wall-clock minutes.")] = None,
    max_gpu_hours: Annotated[float | None, typer.Option(help="GPU-hours of training.")] = None,
    max_usd: Annotated[float | None, typer.Option(help="Dollars for the language model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds data, weights and proposals.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Continue this run.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="A cluster, e.g. auto or host:6379.")
    ] = None,
    unsafe_no_sandbox: _Unsafe = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the first prompt; run nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
) -> None:
    """Search for token mixers: propose code, prove it sound, train it, rank it, keep it all.

    With no arguments: no key, no GPU and no network needed, minutes on two cores. Press Ctrl-C once
    to finish what is running, twice to stop at once; --resume continues either.
    """
    from .agents.start import SearchRequest

    budget = {
        "budget.max_candidates": max_candidates,
        "budget.max_minutes": max_minutes,
        "budget.max_gpu_hours": max_gpu_hours,
        "budget.max_usd": max_usd,
        "proposer.kind": proposer,
        **_files(mixers or [], max_candidates),
        "sandbox.allow_unsafe": unsafe_no_sandbox or None,
        "seed": seed,
    }
    request = SearchRequest(
        profile=profile,
        config_file=config,
        settings=_settings(settings or [], budget),
        store=store,
        resume=resume,
        ray_address=ray_address,
    )
    code = _dry_run(request, as_json) if dry_run else _search(request, as_json)
    raise typer.Exit(code)


def main() -> None:
    """Entry point: an error of ours becomes one sentence and its exit code."""
    with exit_on_error():
        app(prog_name="launch-search")


@contextlib.contextmanager
def exit_on_error() -> Any:
    """Prints a LinearchError as one sentence on standard error and exits with its code."""
    try:
        yield
    except LinearchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _settings(pairs: list[str], options: dict[str, Any]) -> dict[str, Any]:
    from .config import parse_setting

    given = {name: value for name, value in options.items() if value is not None}
    return {**dict(parse_setting(pair) for pair in pairs), **given}


def _files(mixers: list[Path], max_candidates: int | None) -> dict[str, Any]:
    """One's own mixers in the place of a proposer's, and as many candidates."""
    if not mixers:
        return {}
    return {
        "proposer.kind": "files",
        "proposer.files": [str(path.absolute()) for path in mixers],
        "budget.max_candidates": len(mixers) if max_candidates is None else max_candidates,
    }


def _search(request: Any, as_json: bool) -> int:
    from .agents.start import run_search
    from .progress import progress_for
    from .tables import print_outcome, terminal

    console = terminal(stderr=as_json)
    with progress_for(console, plain=as_json) as observer:
        outcome = run_search(request, observer)
    print_outcome(outcome, console, as_json=as_json)
    return outcome.exit_code


def _dry_run(request: Any, as_json: bool) -> int:
    from .agents.plan import plan_search
    from .agents.start import resolve_config
    from .tables import print_plan

    print_plan(plan_search(resolve_config(request)), as_json=as_json)
    return 0


if __name__ == "__main__":
    main()
