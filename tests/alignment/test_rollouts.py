"""Answers of the policy of this moment: how likely they are, who judges them, how often they are learnt from."""

from dataclasses import replace

import pytest
import torch
from vowels import FAMILY, tokenizer

from minigpt.alignment import judges, problems
from minigpt.alignment.config import RolloutConfig
from minigpt.alignment.judges import Answered, open_judge, verified
from minigpt.alignment.logprobs import completion_batch, entropy
from minigpt.alignment.policy_losses import AGGREGATIONS
from minigpt.alignment.reward_model import save_reward_model, with_scalar_head
from minigpt.alignment.rollouts import Experience, Rollouts, chosen, step_weights, trainer_logprobs, write_answers
from minigpt.batches.loader import IGNORED
from minigpt.chat.template import Template
from minigpt.engine.config import SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Request
from minigpt.lessons import puzzles
from minigpt.lessons.family import Problem
from minigpt.model.pretrained import load_pretrained, read_config

ASKED = [(index, Problem("vowel", f"vowel {index}", "a", f"vowel: {index}")) for index in range(40)]
BOLD = SamplingConfig(temperature=1.0, max_new_tokens=4)
CPU = torch.device("cpu")


@pytest.fixture
def gpt(guessing):
    return load_pretrained(guessing)


@pytest.fixture
def template():
    return Template(tokenizer())


def rows_of(answers):
    return completion_batch([answer.prompt for answer in answers], [answer.tokens for answer in answers])


# --- writing ------------------------------------------------------------------------------------------------------


def test_the_trainer_finds_what_the_engine_wrote_as_likely_as_the_engine_did(gpt, template):
    """Trap: two programs compute the same model. Off by more than 1e-4, ratios would begin elsewhere than at 1."""
    answers = write_answers(gpt, template, ASKED, BOLD, 2, seed=3)
    found = trainer_logprobs(gpt, rows_of(answers), temperature=1.0, rows=7)               # (B, T)
    engine = Engine(gpt)
    prompts = [answer.prompt for answer in answers]
    forced = [engine.submit(Request(prompt=[*prompt, *answer.tokens[:k]], logprobs=20, seed=1,
                                    sampling=SamplingConfig(temperature=0, max_new_tokens=1)))
              for prompt, answer in zip(prompts, answers, strict=True) for k in range(len(answer.tokens))]  # fmt: skip
    while engine.busy:
        engine.step()
    wanted = [(answer.tokens[k], i, len(answer.prompt) - 1 + k)
              for i, answer in enumerate(answers) for k in range(len(answer.tokens))]  # fmt: skip
    compared = 0
    for (token, row, place), reply in zip(wanted, forced, strict=True):
        theirs = dict(reply.logprobs[0].likeliest)
        if token in theirs:
            compared += 1
            assert abs(theirs[token] - found[row, place].item()) < 1e-4
    assert compared > 0.9 * len(wanted)


def test_probabilities_are_those_of_the_temperature_that_was_sampled_at(gpt, template):
    """Trap: logits not divided. Of tokens drawn at 0.5 the mean log-probability at 0.5 is minus the entropy there."""
    gpt.lm_head.weight.data *= 8  # far from uniform, which is the same at every temperature
    cold = SamplingConfig(temperature=0.5, max_new_tokens=1)
    answers = write_answers(gpt, template, ASKED[:1], cold, 3000, seed=5)
    batch = rows_of(answers)
    logits = gpt(batch.ids[:1])[:, -1].detach()
    found = {t: trainer_logprobs(gpt, batch, temperature=t, rows=500).sum(1) for t in (0.5, 1.0)}
    error = found[0.5].std() / len(answers) ** 0.5
    assert abs(found[0.5].mean() + entropy(logits, temperature=0.5)[0]) < 4 * error
    assert abs(found[1.0].mean() + entropy(logits, temperature=0.5)[0]) > 8 * error


def test_nothing_is_dropped_while_answers_are_written(guessing, template):
    """Trap: dropout on in rollouts. A model in training mode writes what it writes in evaluation mode."""
    gpt = load_pretrained(guessing, replace(read_config(guessing), dropout=0.5))
    answers = [write_answers(gpt.train(mode), template, ASKED, BOLD, 2, seed=3) for mode in (True, False)]
    assert answers[0] == answers[1]


def test_an_answer_ends_with_its_end_token_or_was_cut_off(gpt, template):
    """The end is a token like others, learnt from like others; the prompt's tokens are no targets."""
    answers = write_answers(gpt, template, ASKED, SamplingConfig(temperature=1.0, max_new_tokens=1), 2, seed=1)
    assert not any(answer.ended or template.end in answer.tokens for answer in answers if answer.text)
    answers = write_answers(gpt, template, ASKED, BOLD, 2, seed=1)
    ended = [answer for answer in answers if answer.ended]
    assert len(ended) > 60 and all(answer.tokens[-1] == template.end for answer in ended)
    batch = rows_of(answers)
    assert (batch.targets != IGNORED).sum(1).tolist() == [len(answer.tokens) for answer in answers]


def test_answers_depend_on_problem_and_member_alone(gpt, template):
    """A problem that replaces another, or comes after a resume, gets the answers it would have had."""
    all_, some = (write_answers(gpt, template, asked, BOLD, 3, seed=2) for asked in (ASKED, ASKED[7:9]))
    assert some == all_[21:27]
    assert len({answer.text for answer in write_answers(gpt, template, ASKED[:1], BOLD, 32, seed=2)}) > 4
    again = write_answers(gpt, template, [(0, ASKED[0][1]), (1, ASKED[0][1])], BOLD, 8, seed=2)
    assert [answer.text for answer in again[:8]] != [answer.text for answer in again[8:]]  # the same asked twice


def test_an_answer_must_fit_into_the_context(gpt, template):
    """A window that slides has forgotten the question, and the trainer's does not slide."""
    with pytest.raises(ValueError, match="takes .*, and the model sees 32: choose a smaller --max-new-tokens"):
        write_answers(gpt, template, ASKED, SamplingConfig(max_new_tokens=24), 1, seed=1)


# --- judging ------------------------------------------------------------------------------------------------------


def answered(text: str, ended: bool = True) -> Answered:
    return Answered(3, ASKED[3][1], [1, 2], [*text.encode(), 259], ended, text)


@pytest.fixture(autouse=True)
def vowels(monkeypatch):
    monkeypatch.setitem(puzzles.PUZZLES, "vowel", FAMILY)


def test_a_right_answer_that_was_cut_off_earns_nothing():
    """Trap: truncated answers rewarded. The model would learn that it need not end."""
    assert verified([answered("a"), answered("a", ended=False), answered("b")]).tolist() == [1, 0, 0]


def test_a_reward_model_gives_a_cut_answer_no_more_than_the_worst(gpt, template, tmp_path):
    """Its rewards may all be negative: 0 would then be the best."""
    model = with_scalar_head(gpt)
    model.lm_head.weight.data *= 30
    save_reward_model(model, tokenizer(), tmp_path)
    judge = open_judge(str(tmp_path), 1, template, CPU)
    found = judge([answered("a"), answered("b"), answered("c", ended=False), answered("")])
    assert found[0] != found[1]
    assert found[2] == found[3] == found[:2].min()


def test_a_reward_model_judges_where_the_policy_is(gpt, template, tmp_path, monkeypatch):
    """Beside a policy on a GPU, one on the CPU would be what every round waits for. Here "meta" stands for a GPU."""
    save_reward_model(with_scalar_head(gpt), tokenizer(), tmp_path)
    where = []
    monkeypatch.setattr(judges, "score", lambda model, *_: where.append(model.lm_head.weight.device.type) or [0.0])
    open_judge(str(tmp_path), 1, template, torch.device("meta"))([answered("a")])
    assert where == ["meta"]


def test_the_controls_do_not_look():
    """Shuffled: the same rewards for other answers. Constant: nothing to compare."""
    answers = [answered(text) for text in "ab" * 50]
    shuffled = open_judge("shuffled", 1, None, CPU)(answers)
    assert shuffled.sum() == 50 and 35 < (shuffled == verified(answers)).sum() < 65
    assert open_judge("constant", 1, None, CPU)(answers).tolist() == [1.0] * 100


def test_an_unknown_judge_is_a_missing_folder(template):
    """A misspelt verifier, say."""
    with pytest.raises(FileNotFoundError, match="--reward verify: there is no such folder"):
        open_judge("verify", 1, template, CPU)


# --- problems -----------------------------------------------------------------------------------------------------


def test_an_unknown_family_is_named_with_the_nearest():
    """And all families of the lessons are known."""
    with pytest.raises(ValueError, match="did you mean brackets"):
        problems.families("bracket")
    assert problems.families("expression, addition") == ["expression", "addition"]
    for family in ("expression", "addition"):
        one = problems.problem_at(family, "test", 1, 5)
        assert one.family == family and problems.is_right(one, one.answer) and not problems.is_right(one, "")


# --- learning from them -------------------------------------------------------------------------------------------


class Counted:
    """Rounds in which every answer says who it is, and in which round."""

    def __init__(self, answers: int) -> None:
        self.state, self.answers = {"drawn": 0}, answers

    def __call__(self) -> Experience:
        self.state["drawn"] += 1
        who = torch.arange(self.answers)[:, None].expand(-1, 3)
        targets = who.masked_fill(torch.arange(3) > who % 3, IGNORED)
        made = torch.full((self.answers, 1), float(self.state["drawn"]))
        old, reference = torch.zeros(self.answers, 3), torch.zeros(self.answers, 3)
        return Experience(who.contiguous(), targets, None, old, reference, made, None, None, made.clone())


def rollouts(accumulate=2, **more):
    config = RolloutConfig(prompts=4, group=4, inner_epochs=2)
    return Rollouts(Counted(16), config, aggregation="dapo", batch_size=4, accumulate=accumulate, seed=1, **more)


def test_each_answer_is_learnt_from_so_many_times_and_then_new_ones_are_written():
    """Two epochs of four micro-batches: the ninth is of the second round."""
    found = [next(loader) for loader in [rollouts()] for _ in range(9)]
    assert [batch.figures[0].item() for batch in found] == [1.0] * 8 + [2.0]
    for epoch in (found[:4], found[4:8]):
        assert sorted(i for batch in epoch for i in batch.ids[:, 0].tolist()) == list(range(16))
    assert found[0].ids.tolist() != found[4].ids.tolist()  # in another order


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5])
def test_a_round_that_was_cut_goes_on(tmp_path, steps):
    """Resume equals no interruption, also where the weights that wrote the answers are gone."""
    one = rollouts()
    for _ in range(2 * steps):
        next(one)
    one.save(tmp_path)
    state = one.state_dict()
    two = rollouts(checkpoint=tmp_path)
    two.load_state_dict(state)
    for _ in range(10):
        for a, b in zip(next(one), next(two), strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


def test_a_round_that_cannot_be_cut_is_refused():
    """A step across two rounds would learn from answers of two policies."""
    with pytest.raises(ValueError, match=r"4 · 4 = 16 answers, and a step learns from 4 · 3 = 12"):
        rollouts(accumulate=3)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_weights_of_micro_batches_add_up_to_those_of_the_step(aggregation):
    """Trap: token means of unequal micro-batches. `fit` divides each loss by their number. (bnpo is to differ.)"""
    mask = torch.arange(5) < torch.tensor([1, 5, 2, 3, 4, 1, 1, 1])[:, None]
    losses = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) * mask
    whole = (AGGREGATIONS[aggregation](mask, 9) * losses).sum()
    weights = step_weights(mask, aggregation, 9, accumulate=2)
    parts = sum((weights * losses)[rows].sum() / 2 for rows in (slice(0, 4), slice(4, 8)))
    assert torch.allclose(parts, whole) == (aggregation != "bnpo")


def test_some_answers_keep_what_belongs_to_them():
    """Rows stay together."""
    part = chosen(Counted(16)(), torch.tensor([5, 2]))
    assert part.ids[:, 0].tolist() == [5, 2] and part.document is None and part.old_values is None
