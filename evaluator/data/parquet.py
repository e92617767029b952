"""Text in Parquet files, a batch of rows at a time. The only module that imports pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import ConfigError, PreflightError

_ROWS_AT_ONCE = 1024


def parquet_texts(file: Path, text_field: str) -> Iterator[str]:
    """The column `text_field`, row by row; an empty text where a row has none.

    Raises ConfigError for another column than one of strings, PreflightError for a file that is
    not Parquet.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as table:
            _require_strings(file, table.schema_arrow, text_field)
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[text_field]):
                for text in batch.column(0).to_pylist():
                    yield text or ""
    except (OSError, pyarrow.ArrowException) as error:
        raise PreflightError(f"Cannot read {file} as Parquet: {error}") from None


def _require_strings(file: Path, schema: Any, text_field: str) -> None:
    import pyarrow

    types = pyarrow.types
    columns = [
        field.name
        for field in schema
        if types.is_string(field.type)
        or types.is_large_string(field.type)
        or types.is_string_view(field.type)
    ]
    if text_field not in columns:
        raise ConfigError(
            f"{file} has no column of text named {text_field!r}; set data.text_field to one "
            f"(here: {', '.join(columns) or 'none'})."
        )
