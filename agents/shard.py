"""The test shard is to be opened once, for finalists: each opening is an event of the run that does
it, and one after another for the same found run is told."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import RunConfig
from ..db import RunRow, Store
from ..errors import ConfigError

SHARD_OPENED = "shard_opened"  # a kind of event


def check_shard(config: RunConfig) -> None:
    """Raises ConfigError where a search would open the shard: what it measures decides."""
    if config.data.test_windows and config.proposer.kind != "finalists":
        raise ConfigError(
            f"data.test_windows={config.data.test_windows} opens the test shard, which is for "
            "finalists alone: leave it at 0 and score them there with `linearch verify`."
        )


def record_opening(store: Store, run_id: str, config: RunConfig) -> None:
    """An event of the run, where its configuration opens the shard."""
    if config.data.test_windows:
        found_in = sorted(_found_in(store, config))
        data = {"found_in": found_in, "windows": config.data.test_windows}
        store.add_event(run_id, SHARD_OPENED, data)


def shard_lines(store: Store, run: RunRow) -> Iterator[str]:
    """A sentence for each found run whose shard an earlier run had scored something on."""
    found_in = _opened_for(store, run.id)
    if not found_in:
        return
    for earlier in store.runs():
        shared = found_in & _opened_for(store, earlier.id)
        if earlier.id >= run.id or not shared or not _is_same_shard(earlier, run):
            continue
        if any(score.test_bpb is not None for score in store.queries.scores(earlier.id)):
            yield (
                f"The test shard was opened before for what run {min(shared)} found, by run "
                f"{earlier.id} on {earlier.created_at:%Y-%m-%d}: if anything was chosen since then "
                "by what it gave, test_bpb is flattered."
            )


def _found_in(store: Store, config: RunConfig) -> set[str]:
    """The runs that the finalists come from; where one is a verification, also those of its own."""
    runs = store.queries.runs_of(config.proposer.finalists)
    return runs.union(*(_opened_for(store, run_id) for run_id in runs))


def _opened_for(store: Store, run_id: str) -> set[str]:
    events = store.queries.events(run_id, kinds=[SHARD_OPENED])
    return {found for event in events for found in event.data["found_in"]}


def _is_same_shard(one: RunRow, other: RunRow) -> bool:
    return bool(one.config["data"]["corpus"] == other.config["data"]["corpus"])
