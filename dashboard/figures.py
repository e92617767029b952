"""What all figures share: colours that read on light and dark, and the noise as it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from ..db import LeaderboardRow, StatisticRow

COLOURS = {
    "candidate": "#4c6ef5",
    "baseline": "#f08c00",
    "reference": "#868e96",
    "front": "#12b886",
    "rejected": "#e03131",
    "quarantined": "#f59f00",
}
BAND = "rgba(240, 140, 0, 0.16)"
QUIET = "rgba(134, 142, 150, 0.55)"
MOST_POINTS = 500  # more stall a browser that draws without a graphics card


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The seed noise of one rung around the baseline that it was measured on, in bits per byte."""

    baseline: str
    mean: float
    sd: float
    low: float | None
    high: float | None
    n: int | None
    resolution: float

    @property
    def band(self) -> tuple[float, float]:
        """Scores that are not told apart from the baseline's."""
        return self.mean - self.resolution, self.mean + self.resolution


def noise_of(floors: tuple[StatisticRow, ...], baseline: str) -> dict[int, Noise]:
    """By rung, from the stored rows."""
    return {
        row.rung: Noise(
            baseline=baseline,
            mean=row.detail["mean"],
            sd=row.value,
            low=row.low,
            high=row.high,
            n=row.n,
            resolution=row.detail["resolution"],
        )
        for row in floors
        if row.rung is not None and row.value is not None and row.detail is not None
    }


def kind_of(row: LeaderboardRow) -> str:
    return "reference" if row.is_reference else "baseline" if row.is_baseline else "candidate"
