"""python -m minigpt lessons tasks: one problem of each family, and what is right without understanding."""

import math
from statistics import mean

from minigpt.lessons.baselines import Baselines, baselines
from minigpt.lessons.config import TasksTableConfig
from minigpt.lessons.tasks import FAMILIES, problem_at


def describe_tasks(wish: TasksTableConfig) -> str:
    """Two tables: examples of one side, and the baselines there."""
    lines = [f"one {wish.side} problem of each family", ""]
    for family in FAMILIES:
        shown = problem_at(family, wish.side, wish.seed, 0)
        lines += [f"  {family}", f"    {shown.prompt}", f"    -> {shown.answer}"]
    measured = {
        family: baselines(family, wish.side, wish.seed, taught=wish.taught, asked=wish.asked) for family in FAMILIES
    }
    lines += ["", f"right without understanding, of {wish.asked} questions, knowing {wish.taught:,} problems", ""]
    lines += [f"  {'':12}  {'prior':>7}  {'nearest':>7}  different problems, about"]
    lines += [_row(family, result) for family, result in measured.items()]
    lines += [
        f"  {'mean':12}  {mean(b.prior for b in measured.values()):7.3f}  "
        f"{mean(b.nearest for b in measured.values()):7.3f}",
        "",
        "prior: always the most frequent training answer. nearest: the answer of the most similar training prompt.",
    ]
    return "\n".join(lines)


def _row(family: str, result: Baselines) -> str:
    many = "too many to see one twice" if math.isinf(result.different) else f"{result.different:,.0f}"
    return f"  {family:12}  {result.prior:7.3f}  {result.nearest:7.3f}  {many}"
