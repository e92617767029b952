"""How a run is going: the funnel, the best so far, lineage, events, budgets, changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, case, func, select

from .journal_records import DUPLICATE, INVALID
from .leaderboard import scores_by_architecture, select_scores
from .quotes import NOT_QUOTED, quotes_by_rung
from .reader import Reader
from .rows import EventRow, StatisticRow, columns_of, rows_of
from .schema import Architecture, Event, GateResult, LLMCall, Parent, Run, Statistic, Trial
from .views import BestPoint, Funnel, Lineage, LineageEdge, LineageNode, Spent

_VOUCHED = ("sound", "measured", "failed")  # every gate passed and nothing is in doubt
_PASSED_GATES = (*_VOUCHED, "quarantined")
_FOUND_OUT = ("noncausal", "unsound")


class ProgressQueries(Reader):
    """Summaries of one run, and what a whole store vouches for."""

    def funnel(self, run_id: str) -> Funnel:
        with self._database.read() as connection:
            counts = _counts(connection, run_id)
            events = _event_counts(connection, run_id)
            training = _in_training(connection, run_id)
        candidates = {key[1:]: n for key, n in counts.items() if not key[0]}
        states: Counter[str] = Counter()
        for (state, _), n in candidates.items():
            states[state] += n
        baselines = {key[1:]: n for key, n in counts.items() if key[0]}
        duplicates, invalid = events.get(DUPLICATE, 0), events.get(INVALID, 0)
        return Funnel(
            proposed=states.total() + duplicates + invalid,
            duplicates=duplicates,
            invalid=invalid,
            in_gates=states["proposed"],
            rejected={
                by or "unknown": n for (state, by), n in candidates.items() if state == "rejected"
            },
            sound=sum(states[state] for state in _PASSED_GATES),
            training=training,
            measured=states["measured"],
            failed=states["failed"],
            quarantined=states["quarantined"],
            baselines=sum(baselines.values()),
            baselines_measured=sum(n for (state, _), n in baselines.items() if state == "measured"),
        )

    def best_so_far(self, run_id: str, rung: int | None = None) -> tuple[BestPoint, ...]:
        """Candidates in the order in which `rung` (by default the highest reached) scored them."""
        with self._database.read() as connection:
            names = _scored_candidates(connection, run_id)
            scores = scores_by_architecture(select_scores(connection, run_id))
        quotes = {id_: quotes_by_rung(scores[id_]) for id_ in names if id_ in scores}
        if rung is None:
            rung = max((max(found) for found in quotes.values() if found), default=0)
        chosen = [(id_, found[rung]) for id_, found in quotes.items() if rung in found]
        chosen.sort(key=lambda pair: pair[1].scores[0].finished_at)
        points: list[BestPoint] = []
        for n, (id_, quote) in enumerate(chosen, start=1):
            best = min(points[-1].best_val_bpb, quote.val_bpb) if points else quote.val_bpb
            points.append(
                BestPoint(
                    n=n,
                    time=quote.scores[0].finished_at,
                    architecture_id=id_,
                    name=names[id_],
                    val_bpb=quote.val_bpb,
                    best_val_bpb=best,
                )
            )
        return tuple(points)

    def lineage(self, run_id: str) -> Lineage:
        """All architectures of a run with their best numbers, and who came from whom."""
        shown = ("id", "number", "name", "origin", "state", "is_reference")
        in_run = Architecture.run_id == run_id
        with self._database.read() as connection:
            architectures = connection.execute(
                select(*(getattr(Architecture, name) for name in shown))
                .where(in_run)
                .order_by(Architecture.number)
            ).all()
            scores = scores_by_architecture(select_scores(connection, run_id))
            edges = connection.execute(
                select(*columns_of(Parent, LineageEdge))
                .join(Architecture, Architecture.id == Parent.child_id)
                .where(in_run)
                .order_by(Parent.child_id, Parent.parent_id)
            ).all()
        nodes = []
        for row in architectures:
            is_quoted = row.state not in NOT_QUOTED
            quotes = quotes_by_rung(scores.get(row.id, ()) if is_quoted else ())
            rung = max(quotes, default=None)
            score = None if rung is None else quotes[rung].val_bpb
            nodes.append(
                LineageNode(**dict(zip(shown, row, strict=True)), rung=rung, val_bpb=score)
            )
        return Lineage(nodes=tuple(nodes), edges=rows_of(LineageEdge, edges))

    def events(
        self, run_id: str, *, limit: int = 100, kinds: Iterable[str] | None = None
    ) -> tuple[EventRow, ...]:
        """The newest `limit` events, oldest first."""
        query = select(*columns_of(Event, EventRow)).where(Event.run_id == run_id)
        if kinds is not None:
            query = query.where(Event.kind.in_(list(kinds)))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(Event.id.desc()).limit(limit)).all()
        return rows_of(EventRow, reversed(rows))

    def statistics(self, run_id: str, name: str) -> tuple[StatisticRow, ...]:
        """The rows last given to `replace_statistics` under this name."""
        query = select(*columns_of(Statistic, StatisticRow)).order_by(Statistic.id)
        with self._database.read() as connection:
            rows = connection.execute(query.filter_by(run_id=run_id, name=name))
            return rows_of(StatisticRow, rows)

    def budget_spent(self, run_id: str) -> Spent:
        """GPU-seconds (by the share of a GPU that each trial held), dollars and candidates."""
        gpus = func.coalesce(Trial.gpus, case((Trial.device.startswith("cuda"), 1.0), else_=0.0))
        with self._database.read() as connection:
            gpu_seconds = connection.scalar(
                select(func.sum(Trial.wall_s * gpus)).where(Trial.run_id == run_id)
            )
            usd = connection.scalar(
                select(func.sum(LLMCall.cost_usd)).where(LLMCall.run_id == run_id)
            )
            candidates = connection.scalar(
                select(func.count())
                .select_from(Architecture)
                .where(Architecture.run_id == run_id, Architecture.origin != "baseline")
            )
        return Spent(gpu_seconds=gpu_seconds or 0.0, usd=usd, candidates=candidates or 0)

    def trusted_hashes(self) -> frozenset[str]:
        """Hashes of the sources that some run's gates all passed, that no trial found out and that
        no run holds in quarantine."""
        with self._database.read() as connection:
            sources = select(Architecture.source_hash).distinct()
            was_judged = Architecture.id.in_(select(GateResult.architecture_id))
            has_failed = Architecture.id.in_(
                select(GateResult.architecture_id).where(~GateResult.passed)
            )
            passed = connection.scalars(
                sources.where(was_judged, ~has_failed, Architecture.state.in_(_VOUCHED))
            )
            leaked = connection.scalars(
                sources.join(Trial, Trial.architecture_id == Architecture.id).where(
                    Trial.status.in_(_FOUND_OUT)
                )
            )
            doubted = connection.scalars(sources.where(Architecture.state == "quarantined"))
            return frozenset(passed) - frozenset(leaked) - frozenset(doubted)

    def change_token(self, run_id: str | None = None) -> str:
        """A text that differs once any row of the run, or of any run, was changed; heartbeats do
        not count."""
        query = select(func.count(), func.sum(Run.revision))
        if run_id is not None:
            query = query.where(Run.id == run_id)
        with self._database.read() as connection:
            n_runs, revisions = connection.execute(query).one()
        return f"{n_runs}-{revisions or 0}"


def _counts(connection: Connection, run_id: str) -> dict[tuple[bool, str, str | None], int]:
    """Architectures by (is a baseline, state, what rejected them)."""
    kind = (Architecture.origin == "baseline", Architecture.state, Architecture.rejected_by)
    rows: Any = connection.execute(
        select(*kind, func.count()).where(Architecture.run_id == run_id).group_by(*kind)
    )
    return {(bool(is_baseline), state, by): n for is_baseline, state, by, n in rows}


def _event_counts(connection: Connection, run_id: str) -> dict[str, int]:
    rows = connection.execute(
        select(Event.kind, func.count())
        .where(Event.run_id == run_id, Event.kind.in_((DUPLICATE, INVALID)))
        .group_by(Event.kind)
    )
    return {kind: n for kind, n in rows}


def _in_training(connection: Connection, run_id: str) -> int:
    query = (
        select(func.count(Trial.architecture_id.distinct()))
        .join(Architecture, Architecture.id == Trial.architecture_id)
        .where(Trial.run_id == run_id, Trial.state.in_(("queued", "running")))
        .where(Architecture.origin != "baseline")
    )
    return connection.scalar(query) or 0


def _scored_candidates(connection: Connection, run_id: str) -> dict[str, str]:
    rows = connection.execute(
        select(Architecture.id, Architecture.name).where(
            Architecture.run_id == run_id,
            Architecture.origin != "baseline",
            ~Architecture.is_reference,
            Architecture.state.not_in(NOT_QUOTED),
        )
    )
    return {id_: name for id_, name in rows}
