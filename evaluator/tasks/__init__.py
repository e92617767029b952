"""Synthetic tasks for what bits per byte do not show. A new one is one file in this folder."""

from .registry import SUITES, TASKS, check_tasks, draw_rows, task_named
from .task import IGNORED_LABEL, Rows, Split, Task, next_tokens, unlabelled

__all__ = [
    "IGNORED_LABEL",
    "SUITES",
    "TASKS",
    "Rows",
    "Split",
    "Task",
    "check_tasks",
    "draw_rows",
    "next_tokens",
    "task_named",
    "unlabelled",
]
