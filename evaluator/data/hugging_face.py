"""Text from the Hugging Face hub, fetched once into the cache. The only module that imports
datasets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import DataConfig
from ...errors import ConfigError, PreflightError
from .parts import whole_file

_PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<dataset>[\w.-]+(/[\w.-]+)?)(/(?P<config>[\w.-]+))?(@(?P<revision>.+))?")
_SPLIT = "train"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    dataset: str
    config: str | None
    revision: str | None


def is_dataset_name(corpus: str) -> bool:
    return corpus.startswith(_PREFIX)


def take(data: DataConfig, folder: Path) -> Path:
    """The first `data.max_bytes` of the training split's texts, as a JSONL file in `folder`.

    `data.corpus` is hf:OWNER/NAME, hf:OWNER/NAME/CONFIG or either with @REVISION. What was fetched
    before is not asked for again, so later runs need no network and have the same text.
    """
    wanted = _parse(data.corpus)
    if data.max_bytes is None:
        raise ConfigError(
            f"Set data.max_bytes, say to 1000000000: how much of {data.corpus} to fetch."
        )
    spec = json.dumps([data.corpus, data.text_field, data.max_bytes])
    digest = hashlib.sha256(spec.encode()).hexdigest()
    kept = folder / f"{wanted.dataset.replace('/', '--')}-{digest[:16]}.jsonl"
    if kept.exists():
        return kept
    rows = _rows(data.corpus, wanted)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(kept) as file:
        n_bytes = 0
        for row in rows:
            text = _text(data, row)
            file.write(json.dumps({data.text_field: text}).encode() + b"\n")
            n_bytes += len(text.encode("utf-8", "surrogatepass"))
            if n_bytes >= data.max_bytes:
                break
    return kept


def _parse(corpus: str) -> _Wanted:
    found = _NAME.fullmatch(corpus)
    if found is None:
        raise ConfigError(
            f"data.corpus={corpus!r} is no dataset's name: write hf:OWNER/NAME or "
            "hf:OWNER/NAME/CONFIG, with @REVISION after it for a certain version."
        )
    return _Wanted(**{key: found[key] for key in ("dataset", "config", "revision")})


def _rows(corpus: str, wanted: _Wanted) -> Iterator[dict[str, Any]]:
    datasets = _library(corpus)
    with _one_sentence(datasets, corpus):
        rows = datasets.load_dataset(
            wanted.dataset,
            wanted.config,
            split=_SPLIT,
            revision=wanted.revision,
            streaming=True,
        )
        yield from rows


def _text(data: DataConfig, row: dict[str, Any]) -> str:
    text = row.get(data.text_field)
    if isinstance(text, str):
        return text
    columns = ", ".join(name for name, value in row.items() if isinstance(value, str))
    raise ConfigError(
        f"{data.corpus} has no text in the column {data.text_field!r}; set data.text_field to one "
        f"that does (here: {columns or 'none'})."
    )


@contextlib.contextmanager
def _one_sentence(datasets: Any, corpus: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise PreflightError(
            f"Cannot fetch {corpus} ({reason}): it needs a network and the dataset's right name; "
            "without them set data.corpus to local text, or to 'stdlib'."
        ) from None


def _library(corpus: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise PreflightError(
            f"{corpus} needs the package datasets: pip install 'linearch[data]', or set "
            "data.corpus to local text."
        ) from None
    return datasets
