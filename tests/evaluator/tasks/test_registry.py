"""Tasks by name, with a run's sizes laid over their own, and what is refused before training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from linearch.config import RecallConfig, load_config, profile_names
from linearch.errors import ConfigError
from linearch.evaluator.tasks import SUITES, TASKS, check_tasks, registry, task_named
from linearch.evaluator.tasks.mqar import MQAR

ONE_FILE = """
from dataclasses import dataclass
from linearch.evaluator.tasks.mqar import MQAR
TASKS = {"found": MQAR(n_pairs=2)}
"""


def test_a_task_is_found_by_its_file_alone():
    folder = Path(registry.__file__).parent
    code = f"""
import importlib.util, pkgutil, sys
sys.modules["linearch.evaluator.tasks.extra"] = extra = importlib.util.module_from_spec(
    importlib.util.spec_from_loader("linearch.evaluator.tasks.extra", loader=None))
real = pkgutil.iter_modules
def with_extra(path=None, prefix=""):
    yield from real(path, prefix)
    if path == [{str(folder)!r}]:
        exec({ONE_FILE!r}, extra.__dict__)
        yield pkgutil.ModuleInfo(None, "extra", False)
pkgutil.iter_modules = with_extra
from linearch.evaluator.tasks import TASKS
print(TASKS["found"].n_pairs, "torch" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["2", "False"]


def test_every_file_of_the_folder_has_a_task():
    folder = Path(registry.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "registry", "task"}
    assert {type(task).__module__.rpartition(".")[2] for task in TASKS.values()} == files


def test_a_suite_is_told_by_the_names():
    assert set(SUITES["slice"]) | set(SUITES["full"]) == set(TASKS)
    assert "mqar" in SUITES["slice"]
    assert "mqar-64x4" in SUITES["full"]


def test_sizes_of_a_run_are_laid_over_the_tasks_own():
    task = task_named("mqar", {"mqar": {"n_pairs": 4}, "parity": {"seq_len": 99}})
    assert task == MQAR(n_pairs=4)
    assert TASKS["mqar"] == MQAR()


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("parrity", {}, "no task 'parrity' in recall.tasks; did you mean 'parity'"),
        ("zebra", {}, "known are a4xz5, .*mqar"),
        ("mqar", {"pairs": 3}, "Unknown setting 'recall.sizes.mqar.pairs'; known are seq_len"),
        ("mqar", {"n_pairs": "3"}, "'recall.sizes.mqar.n_pairs' is '3'; it takes a value like 8"),
        ("mqar", {"n_pairs": True}, "it takes a value like 8"),
        ("mqar", {"seq_len": 16}, "recall.sizes.mqar: seq_len=16 is too short .* it takes 32"),
        ("mqar", {"vocab_size": 9}, "recall.sizes.mqar: vocab_size=9 .* it takes 18"),
        ("parity", {"test_lengths": [40]}, "recall.sizes.parity: test_lengths"),
        ("parity", {"test_lengths": ["40"]}, "takes a value like"),
        ("a5", {"group": "A6"}, "no group 'A6'; known are A5"),
        ("induction", {"train_rows": 0}, "train_rows=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_change(name, sizes, message):
    with pytest.raises(ConfigError, match=message):
        task_named(name, {name: sizes})


def test_numbers_are_taken_where_they_fit():
    assert task_named("noisy_recall", {"noisy_recall": {"noise_share": 0.5}}).noise_share == 0.5
    assert task_named("mqar", {"mqar": {"train_rows": 7}}).train_rows == 7
    assert task_named("parity", {"parity": {"test_lengths": [64, 80]}}).test_lengths == (64, 80)


def test_a_budget_below_one_batch_is_refused():
    recall = RecallConfig(tasks=("parity",), train_tokens=1000)
    with pytest.raises(ConfigError, match=r"less than one batch of 'parity': it takes 1280"):
        check_tasks(recall)


def test_a_test_length_that_cannot_be_is_refused():
    recall = RecallConfig(tasks=("regression",), sizes={"regression": {"test_lengths": [128, 129]}})
    with pytest.raises(ConfigError, match=r"regression\.test_lengths holds 129: .*multiple"):
        check_tasks(recall)


def test_sizes_of_an_unknown_task_are_refused():
    with pytest.raises(ConfigError, match="no task 'mqarr'"):
        check_tasks(RecallConfig(sizes={"mqarr": {}}))


def test_a_task_named_twice_is_refused():
    with pytest.raises(ValueError, match="name each task once"):
        RecallConfig(tasks=("mqar", "mqar"))


def test_every_suite_and_profile_can_be_trained():
    check_tasks(RecallConfig(tasks=(*SUITES["slice"], *SUITES["full"]), train_tokens=1 << 20))
    for profile in profile_names():
        check_tasks(load_config(profile).recall)


def test_a_setting_reaches_one_size():
    config = load_config("cpu", None, {"recall.sizes.mqar.seq_len": 32})
    with pytest.raises(ConfigError, match="vocab_size=16"):
        task_named("mqar", {"mqar": {**config.recall.sizes["mqar"], "vocab_size": 16}})
    assert task_named("mqar", config.recall.sizes).seq_len == 32


def test_a_run_stored_with_one_size_for_all_is_read_as_mqars():
    recall = RecallConfig.model_validate({"vocab_size": 32, "seq_len": 32, "n_pairs": 4})
    assert task_named("mqar", recall.sizes) == MQAR(vocab_size=32, seq_len=32, n_pairs=4)
    assert RecallConfig.model_validate(recall.model_dump(mode="json")) == recall
