"""Held-out questions, their answers judged by the lessons' own rules.

The model says its likeliest tokens, and must end its answer by itself. Two sides are asked, neither ever trained:
combinations of fact and wording that were held out, and wordings that nobody taught (see `lessons.exchange`). Beside
each mark stands what always giving the most frequent answer of the training lessons of this subject would get.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from minigpt.alignment.comparison import answers
from minigpt.chat.template import Template
from minigpt.completion import load_run
from minigpt.engine.config import SamplingConfig
from minigpt.finetune.grade import Score
from minigpt.lessons import python_help, small_talk
from minigpt.lessons.exchange import Lesson, LessonSide, is_right
from minigpt.lessons.help_baselines import answer_of
from minigpt.lessons.preferences import POLITE, without
from minigpt.model.gpt import GPT
from minigpt.runtime.config import MachineConfig

ANSWER_TOKENS = 64  # longest answer; the right ones are shorter
AT_ONCE = 128       # questions between two moves of the bar

Source = Callable[[LessonSide], Iterator[Lesson]]


class Mark(NamedTuple):
    """How many questions of one subject were answered rightly."""

    subject: str
    score: Score
    prior: Score  # of the most frequent answer

    def __str__(self) -> str:
        low, high = self.score.interval
        return (f"{self.subject}: {self.score.share:.1%} right ({low:.1%} to {high:.1%}, n = {self.score.n:,}), "
                f"by the most frequent answer {self.prior.share:.1%}")  # fmt: skip


def of_python(side: LessonSide) -> Iterator[Lesson]:
    return python_help.conversations(side, seed=0)


def refused(side: LessonSide) -> Iterator[Lesson]:
    return (lesson for lesson in small_talk.conversations(side, seed=0) if lesson["kind"] == "refusal")


SUBJECTS: dict[str, tuple[Source, LessonSide]] = {
    "Python": (of_python, "test"),
    "Python, new wordings": (of_python, "templates"),
    "outside of Python": (refused, "test"),
    "outside of Python, new wordings": (refused, "templates"),
}


def examine(folder: Path, questions: int, machine: MachineConfig) -> list[Mark]:
    """Ask the model of a run `questions` questions of each subject, or all there are. The same model, the same marks.

    Raises: ValueError for a model that has not learned to chat.
    """
    model, tokenizer = load_run(folder, machine)
    papers = {subject: list(islice(source(side), questions)) for subject, (source, side) in SUBJECTS.items()}
    marks = []
    with tqdm(total=sum(map(len, papers.values())), unit="question", dynamic_ncols=True) as bar:
        for subject, lessons in papers.items():
            right = right_answers(model, Template(tokenizer), lessons, machine.seed, bar)
            marks.append(Mark(subject, Score(right, len(lessons)), prior(SUBJECTS[subject][0], lessons)))
    return marks


def right_answers(model: GPT, template: Template, lessons: Sequence[Lesson], seed: int, bar: tqdm) -> int:
    """How many of the last questions a model answers rightly."""
    greedy, right = SamplingConfig(temperature=0.0, max_new_tokens=ANSWER_TOKENS), 0
    for first in range(0, len(lessons), AT_ONCE):
        some = lessons[first : first + AT_ONCE]
        # a question that fills the context leaves no room to be right
        asked = [(item, question) for item in some if len(template.prompt(question := item["messages"][:-1]))
                 < model.config.context_length - 1]  # fmt: skip
        said = answers(model, template, [question for _, question in asked], greedy, seed)
        right += sum(one.ended and judged(item, one.text) for (item, _), one in zip(asked, said, strict=True))
        bar.update(len(some))
    return right


def judged(item: Lesson, answer: str) -> bool:
    """Whether an answer is right. A polite phrase, which a preference teaches, makes it neither right nor wrong."""
    return is_right(item["check"], without(answer, POLITE))


def prior(source: Source, lessons: Sequence[Lesson]) -> Score:
    """How many of these the most frequent training answer of their subject gets right."""
    return Score(sum(judged(item, most_frequent(source)) for item in lessons), len(lessons))


@cache
def most_frequent(source: Source) -> str:
    """The answer that the training lessons of a subject give most often."""
    return Counter(map(answer_of, source("train"))).most_common(1)[0][0]
