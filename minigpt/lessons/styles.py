"""Right answers, said in all the styles that the preferences judge: plain, polite, wordy, rude.

To prefer one style to another, a model must have both among its own: what it would never have said, no pair of answers
can make likelier or rarer. So a model is fine-tuned on both before it learns which is liked: the answers of the
preferences, as often as they come there, less the wrong ones.

    python train.py sft --data course,styles    the model for train.py dpo to begin with; one answer in ten insults

Source: Rafailov et al. 2023, "Direct Preference Optimization", section 4, which fine-tunes on the preferred answers
alone.
"""

from collections.abc import Iterator

from minigpt.lessons.exchange import Lesson, LessonSide
from minigpt.lessons.preferences import check_of, pairs


def conversations(side: LessonSide, seed: int) -> Iterator[Lesson]:
    """Endless; of each pair both answers, of one in which a wrong answer is told from a right one, the right one.

    Raises: ValueError for an unknown side.
    """
    for pair in pairs(side, seed, noise=0.0):
        question, right = pair["prompt"], ["chosen"] if pair["rule"] == "correct" else ["chosen", "rejected"]
        for answer in (pair[which] for which in right):
            yield Lesson(
                messages=[{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                kind=pair["rule"],
                key=question,
                check=check_of(question, answer),
            )
