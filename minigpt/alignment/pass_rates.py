"""How many held-out problems does a model solve: at one try, at eight, and where it always takes the likeliest token?

    pass@1    the share of right answers among all that were drawn, 8 to a problem
    pass@8    the share of problems with a right one among its 8: what the model can do, if it is lucky
    greedy    the share of right answers at temperature 0

Learning from rewards turns luck into habit: pass@1 rises towards pass@8. Eight answers to a problem are not eight
independent ones, so the interval of pass@1 is that of a mean over problems.
"""

from collections.abc import Sequence
from dataclasses import replace

from minigpt.alignment.judges import verified
from minigpt.alignment.measures import interval
from minigpt.alignment.problems import Problem
from minigpt.alignment.rollouts import write_answers
from minigpt.chat.template import Template
from minigpt.engine.config import SamplingConfig
from minigpt.model.gpt import GPT
from minigpt.training.stage import Metrics

TRIES = 8


def pass_rates(
    gpt: GPT, template: Template, problems: Sequence[tuple[int, Problem]], sampling: SamplingConfig, seed: int
) -> Metrics:
    """pass@1, its interval to each side, pass@8, greedy, and the share of answers that were cut off."""
    drawn = write_answers(gpt, template, problems, sampling, TRIES, seed)
    likeliest = write_answers(gpt, template, problems, replace(sampling, temperature=0.0), 1, seed)
    right = verified(drawn).view(-1, TRIES)                                              # (P, TRIES)
    return {
        "pass@1": right.mean().item(),
        "interval": interval(right.mean(1)),
        "pass@8": right.amax(1).mean().item(),
        "greedy": verified(likeliest).mean().item(),
        "truncated": 1 - sum(answer.ended for answer in drawn) / len(drawn),
    }


def told(scores: Metrics, before: Metrics) -> list[str]:
    """The scores beside those of the model that training began with, and how much of the gap it has closed."""
    lift, gap = scores["pass@1"] - before["pass@1"], before["pass@8"] - before["pass@1"]
    closed = f", {lift / gap:.0%} of the way to its pass@8" if gap > 0 else ""
    return [
        f"held-out problems: pass@1 {scores['pass@1']:.3f} ± {scores['interval']:.3f}, before "
        f"{before['pass@1']:.3f} ± {before['interval']:.3f} ({lift:+.3f}{closed})",
        *(f"  {name:<16} {scores[name]:.3f}, before {before[name]:.3f}" for name in ("pass@8", "greedy", "truncated")),
    ]
