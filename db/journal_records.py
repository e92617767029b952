"""What happened and what was concluded: events, calls to models, statistics, analyses, insights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, insert
from sqlalchemy.dialects import postgresql, sqlite

from .columns import clean_text
from .ids import new_id
from .inputs import LLMCallLike
from .records import Records, touch, utc_now
from .rows import StatisticRow
from .schema import Analysis, Event, Insight, LLMCall, Statistic, TextBody

DUPLICATE = "duplicate"  # the kinds of event that the funnel counts
INVALID = "invalid"


class JournalRecords(Records):
    """Operations on a run's journal."""

    def add_event(self, run_id: str, kind: str, data: Mapping[str, Any] | None = None) -> None:
        """Append an event; DUPLICATE and INVALID ones stand for proposals that became no row."""
        with self._database.write() as connection:
            touch(connection, run_id)
            connection.execute(
                insert(Event).values(
                    run_id=run_id, time=utc_now(), kind=kind, data=dict(data or {})
                )
            )

    def add_llm_calls(
        self, run_id: str, calls: Iterable[LLMCallLike], architecture_id: str | None = None
    ) -> None:
        """Store calls with their prompts and replies, each distinct text once."""
        calls = list(calls)
        if not calls:
            return
        with self._database.write() as connection:
            touch(connection, run_id)
            for call in calls:
                connection.execute(
                    insert(LLMCall).values(
                        id=new_id(),
                        run_id=run_id,
                        architecture_id=architecture_id,
                        role=call.role,
                        model=call.model,
                        prompt_hash=_put_text(connection, call.prompt),
                        reply_hash=None
                        if call.reply is None
                        else _put_text(connection, call.reply),
                        input_tokens=call.input_tokens,
                        output_tokens=call.output_tokens,
                        cost_usd=call.cost_usd,
                        latency_s=call.latency_s,
                        error=call.error,
                        created_at=utc_now(),
                    )
                )

    def replace_statistics(self, run_id: str, name: str, rows: Iterable[StatisticRow]) -> None:
        """Put `rows` in the place of all statistics of this name."""
        stamped = {"run_id": run_id, "name": name, "created_at": utc_now()}
        values = [{**stamped, **asdict(row)} for row in rows]
        with self._database.write() as connection:
            touch(connection, run_id)
            is_old = (Statistic.run_id == run_id) & (Statistic.name == name)
            connection.execute(delete(Statistic).where(is_old))
            if values:
                connection.execute(insert(Statistic), values)

    def add_analysis(self, run_id: str, architecture_id: str, author: str, body: str) -> None:
        """What `author`, a model or a rule, concluded about one architecture."""
        with self._database.write() as connection:
            touch(connection, run_id)
            connection.execute(
                insert(Analysis).values(
                    id=new_id(),
                    run_id=run_id,
                    architecture_id=architecture_id,
                    author=author,
                    body=body,
                    created_at=utc_now(),
                )
            )

    def add_insight(
        self, run_id: str, author: str, body: str, detail: Mapping[str, Any] | None = None
    ) -> None:
        """A lesson from several architectures; `detail` says which rows it rests on."""
        with self._database.write() as connection:
            touch(connection, run_id)
            connection.execute(
                insert(Insight).values(
                    id=new_id(),
                    run_id=run_id,
                    author=author,
                    body=body,
                    detail=None if detail is None else dict(detail),
                    created_at=utc_now(),
                )
            )


def _put_text(connection: Connection, body: str) -> str:
    body = clean_text(body)
    digest = hashlib.sha256(body.encode()).hexdigest()
    insert_of = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    row = insert_of(TextBody).values(hash=digest, body=body)
    connection.execute(row.on_conflict_do_nothing())  # two runs may store one text at once
    return digest
