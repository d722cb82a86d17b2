"""How many held-out problems does a model solve? By family and side, with intervals, and what needs no understanding.

    test             other problems of the same kind
    compositional    words, neighbours or wordings in combinations that were never trained
    longer           longer than anything that was trained

The model always takes the likeliest token. An answer counts if it is right to the letter and ends by itself.
"""

from collections.abc import Sequence
from itertools import compress, islice
from math import sqrt
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from minigpt.chat.answers import written
from minigpt.chat.template import Template
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.request import Request
from minigpt.finetune.config import GradeConfig
from minigpt.finetune.fresh import prompt_of
from minigpt.lessons.baselines import baselines
from minigpt.lessons.family import Problem
from minigpt.lessons.split import Side
from minigpt.lessons.tasks import families_of, grade, problems
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained
from minigpt.tokenizer import Tokenizer

ASIDE: tuple[Side, ...] = ("test", "compositional", "longer")
COMPANY = 64  # answers written together
SURE = 1.96  # standard errors to each side: 95 % of all samples


class Score(NamedTuple):
    """Right answers of n."""

    right: int
    n: int

    @property
    def share(self) -> float:
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true share lies with 95 %: Wilson's, which does not shrink to nothing at 0 and 1.

            (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)

        Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
        """
        p, n, z2 = self.share, self.n, SURE**2
        middle, half = p + z2 / (2 * n), SURE * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)


def answers(gpt: GPT, template: Template, asked: Sequence[Problem], max_new_tokens: int) -> list[tuple[str, bool]]:
    """(text, ended by itself) of each: the likeliest token at every place, nothing where the model cannot see it all.

    Raises: ValueError for a model whose logits are not finite.
    """
    greedy = SamplingConfig(max_new_tokens=max_new_tokens, temperature=0.0)
    prompts = [prompt_of(problem, template) for problem in asked]
    seen = [len(prompt) <= gpt.config.context_length for prompt in prompts]
    requests = [Request(prompt=prompt, sampling=greedy, stop_ids=(template.end,)) for prompt in compress(prompts, seen)]
    said = ((one.text, one.ended) for one in written(gpt, template, requests, EngineConfig(max_batch=COMPANY)))
    return [next(said) if whole else ("", False) for whole in seen]


def scores(
    gpt: GPT, template: Template, families: Sequence[str], side: Side, *, asked: int, seed: int, size: int | None = None
) -> dict[str, Score]:
    """Exact match of each family on one side."""
    drawn = [problem for family in families for problem in islice(problems(family, side, seed, size=size), asked)]
    # as long as the longest right answer, and one token to end with: what is longer is wrong
    longest = 1 + max(len(template.tokenizer.encode_ordinary(problem.answer)) for problem in drawn)
    said = answers(gpt, template, drawn, longest)
    right = [grade(problem, *answer) for problem, answer in zip(drawn, said, strict=True)]
    return {family: Score(sum(right[i * asked : (i + 1) * asked]), asked) for i, family in enumerate(families)}


def grade_run(run: str | Path, wish: GradeConfig) -> str:
    """The table of a run: its exact match on all sides, and the baselines beside the first.

    Raises: ValueError for a model that has never chatted, or an unknown family; FileNotFoundError.
    """
    gpt, tokenizer = load_pretrained(run).eval(), Tokenizer.load(run)
    template, families = Template(tokenizer), families_of(wish.families)
    sides = {side: scores(gpt, template, families, side, asked=wish.asked, seed=wish.seed, size=wish.size)
             for side in (ASIDE if wish.size is None else ASIDE[:1])}  # fmt: skip
    known = {family: baselines(family, "test", wish.seed, asked=wish.baseline_asked) for family in families}
    lines = [f"{run}: right answers of {wish.asked:,} to each family and side, with 95 % intervals", "",
             f"  {'':12}" + "".join(f"  {side:<21}" for side in sides) + "  prior  nearest"]  # fmt: skip
    for family in families:
        row = "".join(f"  {_shown(side[family]):<21}" for side in sides.values())
        lines.append(f"  {family:12}{row}  {known[family].prior:.3f}  {known[family].nearest:.3f}")
    for name, of in (("mean", mean), ("worst", min)):
        row = "".join(f"  {of(score.share for score in side.values()):<21.3f}" for side in sides.values())
        over = [of(getattr(one, kind) for one in known.values()) for kind in ("prior", "nearest")] if of is mean else []
        lines.append(f"  {name:12}{row}" + "".join(f"  {share:.3f}" for share in over))
    return "\n".join([*lines, "", f"prior and nearest: right without understanding, on test, of {wish.baseline_asked}"])


def _shown(score: Score) -> str:
    low, high = score.interval
    return f"{score.share:.3f} {low:.3f}-{high:.3f}"
