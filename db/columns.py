"""Column types that make SQLite and PostgreSQL store the same values."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Double, Integer, LargeBinary, Text
from sqlalchemy.types import TypeDecorator

RowNumber = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts INTEGER keys only


class UtcTime(TypeDecorator[datetime]):
    """Aware UTC times; SQLite, which has no time zones, holds them as naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value} has no time zone; the store holds UTC")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class CleanText(TypeDecorator[str]):
    """Text as models and candidates write it: NUL and lone surrogates, which PostgreSQL and UTF-8
    refuse, become U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value)


class FiniteNumber(TypeDecorator[float]):
    """A double; NaN and infinities are missing numbers and become NULL."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return None if value is None or not math.isfinite(value) else float(value)


class LengthTable(TypeDecorator[dict[int, int]]):
    """A table from sequence lengths to numbers as JSON, whose keys are integers again when read."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_result_value(
        self, value: dict[str, int] | None, dialect: Dialect
    ) -> dict[int, int] | None:
        return None if value is None else {int(key): number for key, number in value.items()}


class Float32s(TypeDecorator[Sequence[float]]):
    """Numbers as little-endian float32, four bytes each; read as a tuple."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Sequence[float] | None, dialect: Dialect) -> bytes | None:
        return None if value is None else struct.pack(f"<{len(value)}f", *value)

    def process_result_value(
        self, value: bytes | None, dialect: Dialect
    ) -> tuple[float, ...] | None:
        return None if value is None else struct.unpack(f"<{len(value) // 4}f", value)


def clean_text(text: str) -> str:
    """`text` without what a UTF-8 database column cannot hold."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    return (
        text
        if text.isascii()
        else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def to_json(value: Any) -> str:
    """Strict JSON; non-finite numbers, which it lacks, become the texts "nan", "inf" and "-inf"."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_without_non_finite(value), allow_nan=False)


def _without_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_non_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
