"""Tasks: data with parts, loss and score, to train networks on and to choose them by."""

from ssmred.tasks.catalogue import NAMES, load
from ssmred.tasks.sample import Sample
from ssmred.tasks.task import Task
from ssmred.tasks.two_stream import TwoStream

__all__ = ["NAMES", "Sample", "Task", "TwoStream", "load"]
