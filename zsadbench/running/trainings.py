"""The trainings that a run starts before its cells can run."""

from __future__ import annotations

from functools import partial

from zsadbench.errors import ZsadError
from zsadbench.running.plan import plan_cells
from zsadbench.running.planned import Plan
from zsadbench.running.request import Request
from zsadbench.support.guard import guard
from zsadbench.training.loop import TrainingProgress, train


def train_missing(plan: Plan, request: Request, progress: TrainingProgress) -> Plan:
    """Train what a run lacks, and plan it again; where a training fails, its cells fail for that reason."""
    if not plan.trainings:
        return plan
    failures: dict[str, ZsadError] = {}
    for training in plan.trainings:
        outcome = guard(partial(train, training.request, progress), request.fail_fast)
        if isinstance(outcome, ZsadError):
            failures |= dict.fromkeys(training.names, outcome)
    return plan_cells(request, plan.resolved, failures)
