from __future__ import annotations

from typing import Any

import pytest

from linearch.db import CURVE
from linearch.errors import StoreError
from linearch.evaluator.results import TrialResult, TrialStatus

DONE = TrialResult(status="done", metrics={"val_bpb": 2.5})


def test_a_trial_is_queued_once_for_its_key(lab: Any) -> None:
    row = lab.sound()
    first = lab.enqueue(row.id)
    assert lab.enqueue(row.id) == first
    others = [lab.enqueue(row.id, **key) for key in ({"seed": 1}, {"rung": 1}, {"task": "mqar"})]
    assert len({first.id, *(other.id for other in others)}) == 4
    assert lab.store.queued_trials(lab.run_id) == (first, *others)


def test_a_finished_trial_is_not_queued_again(lab: Any) -> None:
    row = lab.sound()
    done = lab.score(row.id, 2.5)
    assert lab.enqueue(row.id) == done
    assert lab.store.start_trial(done.id) is None


def test_the_whole_life_of_a_trial_is_kept(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    assert (trial.state, trial.epoch, trial.attempts, trial.tokens) == ("queued", 0, 0, 131_072)
    epoch = lab.store.start_trial(trial.id, "host:1", gpus=0.25)
    running = lab.store.trial(trial.id)
    assert (running.state, running.owner, running.attempts) == ("running", "host:1", 1)
    assert running.heartbeat_at is not None
    assert lab.store.heartbeat_trial(trial.id, epoch)
    result = TrialResult(
        status="done",
        metrics={"val_bpb": 2.5, "tokens_per_s": None},
        curve=((1024, 5.0), (2048, 4.0)),
        checkpoint=b"before the cooldown",
        weights=b"scored",
        wall_s=9.5,
        device="cuda:0",
        environment={"torch": "2.11"},
    )
    assert lab.store.finish_trial(trial.id, epoch, result)
    (detail,) = lab.store.queries.architecture(trial.architecture_id).trials
    assert detail.metrics == {"val_bpb": 2.5, "tokens_per_s": None}
    assert detail.curves == {CURVE: ((1024, 5.0), (2048, 4.0))}
    done = detail.trial
    assert (done.state, done.status, done.wall_s, done.gpus) == ("done", "done", 9.5, 0.25)
    assert (done.device, done.environment) == ("cuda:0", {"torch": "2.11"})
    assert lab.store.blobs.get(done.checkpoint_hash) == b"before the cooldown"
    assert lab.store.blobs.get(done.weights_hash) == b"scored"
    assert done.queued_at <= done.started_at <= done.finished_at


def test_the_loss_of_each_window_is_kept_to_float32_and_none_is_no_window(lab: Any) -> None:
    trial, older = lab.enqueue(lab.sound().id), lab.enqueue(lab.sound().id)
    nats = (1.5, 200.1, 0.0)
    result = TrialResult(status="done", metrics={"val_bpb": 2.5}, window_nats=nats)
    for id_, outcome in ((trial.id, result), (older.id, DONE)):
        assert lab.finish(id_, outcome)
    found = lab.store.queries.window_nats(lab.run_id)
    assert found == {trial.id: pytest.approx(nats, rel=1e-7)}


def test_only_one_of_two_takers_gets_a_trial(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    assert lab.store.start_trial(trial.id, "a:1") == 1
    assert lab.store.start_trial(trial.id, "b:2") is None
    assert lab.store.trial(trial.id).owner == "a:1"


def test_a_stale_owner_can_write_nothing(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    stale = lab.store.start_trial(trial.id, "paused:1")
    assert lab.store.requeue_orphans(lab.run_id).requeued == (trial.id,)
    assert not lab.store.finish_trial(trial.id, stale, DONE)
    fresh = lab.store.start_trial(trial.id, "resumed:2")
    assert not lab.store.heartbeat_trial(trial.id, stale)
    assert not lab.store.finish_trial(trial.id, stale, DONE)
    assert not lab.store.requeue_trial(trial.id, stale, "woke up late")
    better = TrialResult(status="done", metrics={"val_bpb": 2.0})
    assert lab.store.finish_trial(trial.id, fresh, better)
    assert not lab.store.finish_trial(trial.id, fresh, DONE)  # delivered twice
    (score,) = lab.store.queries.scores(lab.run_id)
    assert (score.val_bpb, lab.store.trial(trial.id).attempts) == (2.0, 2)


def test_a_stale_result_leaves_its_architecture_alone(lab: Any) -> None:
    row = lab.sound()
    trial = lab.enqueue(row.id)
    stale = lab.store.start_trial(trial.id)
    lab.store.requeue_orphans(lab.run_id)
    leak = TrialResult(status="noncausal", reason="prefixes differ")
    assert not lab.store.finish_trial(trial.id, stale, leak)
    assert lab.store.architecture(row.id).state == "sound"


def test_a_trial_that_kills_its_drivers_is_poisoned_after_its_attempts(lab: Any) -> None:
    row = lab.sound()
    trial = lab.enqueue(row.id)
    for _ in range(2):
        lab.store.start_trial(trial.id)
        assert lab.store.requeue_orphans(lab.run_id, max_attempts=3).requeued == (trial.id,)
    lab.store.start_trial(trial.id)
    orphans = lab.store.requeue_orphans(lab.run_id, max_attempts=3)
    assert (orphans.requeued, orphans.poisoned) == ((), (trial.id,))
    ended = lab.store.trial(trial.id)
    assert (ended.state, ended.status, ended.attempts) == ("failed", "infra", 3)
    assert ended.reason.startswith("poisoned: 3 attempts")
    assert lab.store.architecture(row.id).state == "failed"
    assert lab.store.requeue_orphans(lab.run_id).requeued == ()


def test_a_trial_whose_worker_broke_is_given_back_with_the_reason(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    epoch = lab.store.start_trial(trial.id)
    assert lab.store.requeue_trial(trial.id, epoch, "node lost", max_attempts=2)
    back = lab.store.trial(trial.id)
    assert (back.state, back.reason, back.owner) == ("queued", "node lost", None)
    epoch = lab.store.start_trial(trial.id)
    assert not lab.store.requeue_trial(trial.id, epoch, "node lost", max_attempts=2)
    assert lab.store.trial(trial.id).state == "failed"


def test_orphans_of_other_runs_are_left_alone(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    lab.store.start_trial(trial.id)
    other = lab.store.create_run({}, {}, seed=1)
    assert lab.store.requeue_orphans(other).requeued == ()
    assert lab.store.trial(trial.id).state == "running"


def test_a_failed_rate_does_not_fail_an_architecture_that_another_rate_measured(lab: Any) -> None:
    row = lab.sound()
    trials = [lab.enqueue(row.id, learning_rate=rate) for rate in (1e-3, 3e-3, 1e-2)]
    lab.finish(trials[0].id, TrialResult(status="diverged", reason="loss is NaN"))
    assert lab.store.architecture(row.id).state == "sound"
    lab.finish(trials[1].id, DONE)
    lab.finish(trials[2].id, TrialResult(status="diverged", reason="loss is NaN"))
    found = lab.store.architecture(row.id)
    assert (found.state, found.reason) == ("measured", None)


@pytest.mark.parametrize("status", ["diverged", "timeout", "oom", "crashed", "protocol"])
def test_an_architecture_fails_when_all_its_trainings_did(lab: Any, status: TrialStatus) -> None:
    row = lab.sound()
    trials = [lab.enqueue(row.id, seed=seed) for seed in (0, 1)]
    lab.finish(trials[0].id, TrialResult(status=status, reason="first"))
    assert lab.store.architecture(row.id).state == "sound"
    lab.finish(trials[1].id, TrialResult(status=status, reason="second"))
    found = lab.store.architecture(row.id)
    assert (found.state, found.reason, found.rejected_by) == ("failed", "second", None)


def test_the_recall_task_alone_neither_measures_nor_fails_an_architecture(lab: Any) -> None:
    row = lab.sound()
    lab.finish(lab.enqueue(row.id, task="mqar").id, TrialResult(status="timeout"))
    assert lab.store.architecture(row.id).state == "sound"


def test_a_trial_found_non_causal_rejects_its_architecture_for_good(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 0.1)
    leak = TrialResult(status="noncausal", reason="prefixes score 2.9, not 0.1")
    lab.finish(lab.enqueue(row.id, rung=1).id, leak)
    lab.score(row.id, 0.1, seed=1)
    found = lab.store.architecture(row.id)
    assert (found.state, found.rejected_by) == ("rejected", "noncausal")
    assert found.reason == "prefixes score 2.9, not 0.1"
    (shown,) = lab.store.queries.leaderboard(lab.run_id)
    assert shown.val_bpb is None


def test_a_result_without_numbers_or_files_is_stored(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    assert lab.finish(trial.id, TrialResult(status="oom"))
    ended = lab.store.trial(trial.id)
    assert (ended.status, ended.weights_hash, ended.checkpoint_hash) == ("oom", None, None)


def test_a_trial_of_an_unknown_architecture_is_not_queued(lab: Any) -> None:
    with pytest.raises(StoreError, match="no architecture 'nobody'"):
        lab.enqueue("nobody")


def test_unknown_trials_are_refused(lab: Any) -> None:
    with pytest.raises(StoreError, match="no trial 'nothing'"):
        lab.store.start_trial("nothing")


def test_a_dropped_checkpoint_frees_its_file_but_not_the_weights(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    result = TrialResult(status="done", checkpoint=b"to continue", weights=b"scored")
    assert lab.finish(trial.id, result)
    before = lab.store.trial(trial.id)
    lab.store.drop_checkpoint(trial.id)
    lab.store.drop_checkpoint(trial.id)
    assert lab.store.trial(trial.id).checkpoint_hash is None
    assert not lab.store.blobs.path(before.checkpoint_hash).exists()
    assert lab.store.blobs.get(before.weights_hash) == b"scored"


def test_a_checkpoint_that_another_trial_shares_is_kept(lab: Any) -> None:
    row = lab.sound()
    trials = [lab.enqueue(row.id, seed=seed) for seed in (0, 1)]
    for trial in trials:
        lab.finish(trial.id, TrialResult(status="done", checkpoint=b"the same"))
    digest = lab.store.trial(trials[0].id).checkpoint_hash
    lab.store.drop_checkpoint(trials[0].id)
    assert lab.store.blobs.get(digest) == b"the same"
    lab.store.drop_checkpoint(trials[1].id)
    assert not lab.store.blobs.path(digest).exists()


def test_a_trial_is_found_with_what_was_measured_and_why_it_was_run(lab: Any) -> None:
    row = lab.sound()
    trial = lab.score(row.id, 2.5, purpose="random")
    other = lab.score(row.id, 2.4, seed=1, purpose="fresh")
    n_shared = next(i for i in range(26) if trial.id[i] != other.id[i])
    found = lab.store.queries.find_trial(trial.id[: n_shared + 1].lower())
    assert (found.trial.id, found.trial.purpose) == (trial.id, "random")
    assert found.metrics["val_bpb"] == 2.5
    assert lab.store.queries.find_trial("NOPE") is None
    assert lab.store.queries.find_trial(trial.id[:n_shared]) is None
    assert {score.purpose for score in lab.store.queries.scores(lab.run_id)} == {"random", "fresh"}


def test_a_trial_keeps_the_purpose_it_was_queued_for(lab: Any) -> None:
    row = lab.sound()
    lab.enqueue(row.id, purpose="random")
    assert lab.enqueue(row.id, purpose="promoted").purpose == "random"
