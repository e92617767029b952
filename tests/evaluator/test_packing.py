"""Which jobs share a GPU, on numbers: measured shares, a first guess, and who has it alone."""

from __future__ import annotations

import pytest

from linearch.evaluator.packing import Packing, Seat, Work, fits, ran_out_of_gpu_memory
from linearch.evaluator.results import GateResult, Judgement, Stage, TrialResult

SMALL, LARGE, NEW = (Work(name, "corpus") for name in ("small", "large", "new"))
GATES = Work("new", "gates")
OOM = TrialResult(status="oom", reason="training: CUDA out of memory. Tried to allocate 2 GiB")


class Gpus:
    """Packs jobs, which are named by numbers, on GPUs that have as many workers each."""

    def __init__(self, at_once: int | None, *gpus: str) -> None:
        self.packing: Packing[int] = Packing(at_once)
        self.idle = [gpu for gpu in gpus for _ in range(at_once or 2)]
        self.works: dict[int, Work] = {}
        self.seats: dict[int, Seat[int]] = {}

    def ask(self, *works: Work) -> None:
        for work in works:
            number = len(self.works)
            self.works[number] = work
            self.packing.ask(number, work)
        self.start()

    def start(self) -> None:
        while (seat := self.packing.start_next(self.idle)) is not None:
            self.idle.remove(seat.gpu)
            self.seats[seat.job] = seat

    def measure(self, work: Work, share: float) -> None:
        """One job of this work ends; alone where it takes more than the first guess."""
        number = len(self.works)
        self.ask(work)
        if share > self.seats[number].share:
            self.end(number, OOM)
        self.end(number, took(share))

    def end(self, number: int, value: TrialResult | None) -> bool:
        seat = self.seats.pop(number)
        self.idle.append(seat.gpu)
        is_told = self.packing.end(seat, self.works[number], value)
        self.start()
        return is_told


def took(share: float | None) -> TrialResult:
    return TrialResult(status="done", gpu_share=share)


@pytest.mark.parametrize("at_once", [1, 3, 6, 8, 49])
def test_before_anything_is_measured_as_many_run_as_the_profile_says(at_once: int) -> None:
    gpus = Gpus(at_once, "a")
    gpus.ask(*[NEW] * (at_once + 1))
    assert len(gpus.seats) == at_once
    assert {seat.share for seat in gpus.seats.values()} == {1 / at_once}


def test_only_so_many_run_as_fit_by_what_the_same_work_took() -> None:
    gpus = Gpus(8, "a")
    gpus.measure(LARGE, 0.3)
    gpus.ask(*[LARGE] * 4)
    assert sorted(gpus.seats) == [1, 2, 3]  # with the margin 0.33 each
    assert gpus.packing.is_waiting
    gpus.end(2, took(0.3))
    assert sorted(gpus.seats) == [1, 3, 4]


def test_the_largest_that_was_measured_counts() -> None:
    gpus = Gpus(2, "a")
    for share in (0.2, 0.4, 0.3):
        gpus.measure(SMALL, share)
    assert gpus.packing.share_of(SMALL) == pytest.approx(0.44)


def test_a_new_mixer_takes_the_first_guess_whatever_was_measured_of_others() -> None:
    gpus = Gpus(8, "a")
    gpus.measure(SMALL, 0.05)
    gpus.measure(LARGE, 0.9)  # new ones do not wait for room because it needed a GPU alone
    assert gpus.packing.share_of(SMALL) == pytest.approx(0.055)
    assert gpus.packing.share_of(NEW) == gpus.packing.share_of(GATES) == 1 / 8


def test_small_jobs_fill_what_a_large_one_leaves() -> None:
    gpus = Gpus(8, "a")
    gpus.measure(SMALL, 0.1)
    gpus.measure(LARGE, 0.6)
    gpus.ask(LARGE, *[SMALL] * 5)
    assert sorted(gpus.seats) == [2, 3, 4, 5]  # 0.66 and three times 0.11


def test_what_runs_out_of_memory_in_company_is_tried_again_alone_and_then_packed_as_measured() -> (
    None
):
    gpus = Gpus(8, "a")
    gpus.ask(LARGE, SMALL)
    assert not gpus.end(0, OOM)
    assert sorted(gpus.seats) == [1]  # it waits until the other has ended
    gpus.ask(SMALL)
    gpus.end(1, took(0.1))
    assert sorted(gpus.seats) == [0]
    assert gpus.seats[0].share == 1.0
    assert gpus.end(0, took(0.5))
    assert sorted(gpus.seats) == [2]
    gpus.ask(LARGE)
    assert gpus.seats[3].share == pytest.approx(0.55)


def test_more_than_a_job_was_let_have_is_not_believed() -> None:
    gpus = Gpus(4, "a")
    gpus.ask(SMALL)
    gpus.end(0, took(1.0))
    assert gpus.packing.share_of(SMALL) == 1 / 4


def test_what_runs_out_of_memory_alone_is_told() -> None:
    gpus = Gpus(8, "a")
    gpus.ask(LARGE)
    assert not gpus.end(0, OOM)
    assert gpus.end(0, OOM)
    assert not gpus.seats


def test_where_one_runs_at_a_time_nothing_is_tried_again() -> None:
    gpus = Gpus(1, "a")
    gpus.measure(LARGE, 0.3)
    gpus.ask(LARGE)
    assert gpus.end(1, OOM)


def test_a_margin_does_not_part_those_that_the_profile_runs_side_by_side() -> None:
    gpus = Gpus(2, "a")
    gpus.measure(LARGE, 0.48)
    gpus.ask(LARGE, LARGE)
    assert sorted(gpus.seats) == [1, 2]


def test_what_is_tried_again_has_a_gpu_alone_whatever_was_measured_meanwhile() -> None:
    gpus = Gpus(8, "a")
    gpus.ask(LARGE, LARGE, SMALL)
    assert not gpus.end(0, OOM)
    gpus.end(1, took(0.12))
    assert sorted(gpus.seats) == [2]
    gpus.end(2, took(0.1))
    assert gpus.seats[0].share == 1.0


def test_jobs_go_to_the_gpu_with_the_most_room() -> None:
    gpus = Gpus(4, "a", "b")
    gpus.measure(LARGE, 0.6)
    gpus.ask(LARGE, LARGE, LARGE)
    assert {gpus.seats[number].gpu for number in (1, 2)} == {"a", "b"}
    assert 3 not in gpus.seats


def test_without_a_gpu_nothing_waits_for_memory() -> None:
    gpus = Gpus(None, "")
    gpus.ask(LARGE, SMALL)
    assert sorted(gpus.seats) == [0, 1]
    oom = TrialResult(status="oom", reason="training: 99 MiB of memory, 64 are allowed")
    assert gpus.end(0, oom)


def test_a_worker_that_died_gives_its_share_back() -> None:
    gpus = Gpus(2, "a")
    gpus.ask(NEW, NEW, NEW)
    assert gpus.end(0, None)
    assert sorted(gpus.seats) == [1, 2]


def test_an_empty_gpu_takes_any_job_and_a_used_one_what_is_left_of_it() -> None:
    assert fits(1.0, 0.0)
    assert fits(0.5, 0.5)
    assert not fits(0.51, 0.5)


def judged(reason: str, stage: Stage) -> Judgement:
    return Judgement(results=(GateResult(gate="shape", passed=False, reason=reason, stage=stage),))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (OOM, True),
        (TrialResult(status="oom", reason="training: 9 MiB of GPU memory, 8 are allowed"), True),
        (TrialResult(status="oom", reason="training: 9 MiB of memory, 8 are allowed"), False),
        (TrialResult(status="unsound", reason="a gate fails: (oom): CUDA out of memory"), True),
        (TrialResult(status="crashed", reason="training: CUDA error"), False),
        (judged("no usable answer (oom): CUDA out of memory.", "device"), True),
        (judged("no usable answer (oom): not enough memory.", "cpu"), False),
        (judged("no usable answer (raised): CUDA error.", "device"), False),
        (TrialResult(status="done"), False),
        (None, False),
    ],
)
def test_only_the_gpus_memory_is_had_alone(
    value: Judgement | TrialResult | None, expected: bool
) -> None:
    assert ran_out_of_gpu_memory(value) is expected
