"""Pruning of operators: fine-tuning, and what runs several candidates side by side."""

from ssmred.prune.candidates import run_all
from ssmred.prune.recipe import History, Training
from ssmred.prune.scoring import evaluate
from ssmred.prune.training import train

__all__ = ["History", "Training", "evaluate", "run_all", "train"]
