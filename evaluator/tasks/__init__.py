"""Synthetic tasks for what bits per byte do not show. A new one is one file and one line here."""

from collections.abc import Mapping

from .mqar import MQAR
from .task import IGNORED_LABEL, Task, accuracy

TASKS: Mapping[str, Task] = {"mqar": MQAR()}

__all__ = ["IGNORED_LABEL", "TASKS", "Task", "accuracy"]
