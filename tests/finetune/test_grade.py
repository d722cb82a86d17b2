"""Exact match of a model on the families of problems."""

from itertools import islice

import pytest
import torch
from small_gpt import made_gpt

from minigpt.chat.template import Template, with_chat_tokens
from minigpt.finetune import grade as grading
from minigpt.finetune.config import GradeConfig
from minigpt.finetune.grade import Score, answers, grade_run, scores
from minigpt.finetune.sft import save_chat_model
from minigpt.lessons.family import Problem
from minigpt.lessons.tasks import problems
from minigpt.tokenizer import Tokenizer

TEMPLATE = Template(with_chat_tokens(Tokenizer.bytes_only()))


@pytest.fixture
def gpt():
    return made_gpt(vocab_size=TEMPLATE.tokenizer.n_vocab, context_length=128).float()


def test_wilson_by_hand():
    """8 of 10: 0.490 to 0.943, as in textbooks. 10 of 10 is not sure either: its interval begins at 0.722."""
    assert Score(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Score(10, 10).interval == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_the_likeliest_token_at_every_place(gpt):
    """The twin without engine: ask for the next token again and again. None of these ends by itself."""
    asked = list(islice(problems("copy", "test", 0), 3))
    for problem, (text, ended) in zip(asked, answers(gpt, TEMPLATE, asked, 5), strict=True):
        ids = TEMPLATE.prompt([{"role": "user", "content": problem.prompt}])
        for _ in range(5):
            ids.append(int(gpt(torch.tensor([ids]))[0, -1].argmax()))
        assert (text, ended) == (TEMPLATE.tokenizer.decode(ids[-5:]), False)


def test_only_right_answers_that_end_count(gpt, monkeypatch):
    """Of four copies, one is wrong and one cut off; sums are all right. They are told apart by family."""
    said = {}

    def pupil(gpt, template, asked, max_new_tokens):
        said["longest"] = max_new_tokens
        return [(problem.answer + "!" * (i == 1), i != 2) for i, problem in enumerate(asked)]

    monkeypatch.setattr(grading, "answers", pupil)
    result = scores(gpt, TEMPLATE, ["copy", "addition"], "test", asked=4, seed=1)
    assert result == {"copy": Score(2, 4), "addition": Score(4, 4)}
    asked = [problem for family in result for problem in islice(problems(family, "test", 1), 4)]
    assert said["longest"] == max(len(problem.answer.encode()) for problem in asked) + 1  # room for the longest


def test_what_the_model_cannot_see_whole_is_not_answered(gpt):
    """And the others get their own answers."""
    short, long = problems("copy", "test", 0), Problem("copy", "x" * 200, "x", "x")
    asked = [next(short), long, next(short)]
    said = answers(gpt, TEMPLATE, asked, 5)
    assert said[1] == ("", False)
    assert [said[0], said[2]] == answers(gpt, TEMPLATE, [asked[0], asked[2]], 5)


def test_a_broken_model_is_no_model_that_knows_nothing(gpt):
    """Weights that are not finite would be graded 0.000."""
    torch.nn.init.constant_(gpt.blocks[0].mlp.down_proj.weight, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        answers(gpt, TEMPLATE, list(islice(problems("copy", "test", 0), 2)), 5)


def test_the_table_of_a_run(gpt, tmp_path):
    """All sides, the baselines beside them; one family is a table, too."""
    save_chat_model(gpt, TEMPLATE.tokenizer, tmp_path)
    table = grade_run(tmp_path, GradeConfig(families="copy,case", asked=3, baseline_asked=2))
    for word in ("test", "compositional", "longer", "prior", "nearest", "copy", "case", "mean", "worst", "0.000-0.562"):
        assert word in table
    only = grade_run(tmp_path, GradeConfig(families="addition", size=3, asked=3, baseline_asked=2))
    assert "longer" not in only


def test_a_model_that_never_chatted_is_refused(tmp_path):
    base = made_gpt(vocab_size=256, context_length=128).float()
    from minigpt.model.pretrained import save_pretrained

    save_pretrained(base, tmp_path)
    Tokenizer.bytes_only().save(tmp_path)
    with pytest.raises(ValueError, match="python train.py sft teaches a run to chat"):
        grade_run(tmp_path, GradeConfig(families="copy", asked=1))
