"""DPO as a stage: the reference stays where it was, the margin is of the right tokens, and the answers are judged."""

import json
import math
import shlex
import shutil

import pytest
import torch
from counted_bytes import counted_bytes
from scripts import run_script
from small_gpt import made_gpt

from minigpt import presets
from minigpt.alignment import dpo as dpo_stage
from minigpt.alignment.comparison import Comparison, Said, answers, exact_match, kl_per_token
from minigpt.alignment.config import DPOConfig
from minigpt.alignment.dpo import LOSSES, answer_logprobs, compared, dpo_batch, load_judge, open_comparison
from minigpt.alignment.logprobs import frozen
from minigpt.alignment.preference_batches import Labelled, TokenPair, swapped, tokenized
from minigpt.alignment.reward_model import save_reward_model, with_scalar_head
from minigpt.chat.template import Template
from minigpt.engine.config import SamplingConfig
from minigpt.lessons.preference_file import preference
from minigpt.model.pretrained import load_pretrained
from minigpt.runtime.checkpoint import file_digest
from minigpt.runtime.distributed import Group
from minigpt.runtime.logbook import read_events
from minigpt.tokenizer import Tokenizer
from minigpt.training.estimate import standing

SHORT = ("--max-steps", "6", "--warmup-steps", "2", "--eval-every", "3", "--eval-batches", "2", "--save-every", "2",
         "--sample-every", "0", "--batch-size", "4", "--threads", "1", "--device", "cpu", "--prompts", "3",
         "--answer-tokens", "6")  # fmt: skip
CPU = torch.device("cpu")


def a_pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> TokenPair:
    messages = preference({"prompt": "a", "chosen": "b", "rejected": "c"})
    rows = [[*prompt, *answer] for answer in (chosen, rejected)]
    said = ([place >= len(prompt) for place in range(len(row))] for row in rows)
    return TokenPair(messages, *rows, *said, False)


PAIRS = [a_pair([5, 6], [7, 8, 0], [9, 0]), a_pair([1], [2, 0], [3, 4, 5, 0]), a_pair([3, 3, 3], [4, 0], [0])]


def margins(model, batch, per_token=False):
    return compared(model, batch, per_token=per_token)[0]


# --- the margin ---------------------------------------------------------------------------------------------------


def test_only_answers_are_targets_one_to_the_right():
    """Traps: the prompt in the mask, the shift by one, an end token (0) lost because it equals the padding."""
    batch = dpo_batch(PAIRS[:2], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert batch.ids.tolist() == [[5, 6, 7, 8], [1, 2, 0, 0], [5, 6, 9, 0], [1, 3, 4, 5]]
    assert batch.targets.tolist() == [[-100, 7, 8, 0], [2, 0, -100, -100], [-100, 9, 0, -100], [3, 4, 5, 0]]
    assert batch.reference.tolist() == [1.0, 3.0, 2.0, 4.0]  # all chosen, then all rejected


def test_what_the_user_says_within_an_answer_is_no_target(chat_model):
    """An answer may be of several turns: nobody learns to prefer the user's words."""
    template = Template(Tokenizer.load(chat_model))
    talk = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "why"},
            {"role": "assistant", "content": "b"}]  # fmt: skip
    before = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}]
    pair = preference({"prompt": before, "chosen": talk, "rejected": "c"})
    [found] = tokenized([Labelled(pair)], template, 64, "a test", tell=False)
    learned = [token for token, own in zip(found.chosen, found.said_chosen, strict=True) if own]
    decode = template.tokenizer.decode
    assert decode(learned) == "a<|end|>b<|end|>"
    assert decode([t for t, own in zip(found.rejected, found.said_rejected, strict=True) if own]) == "c<|end|>"


def test_the_margin_is_that_of_each_answer_alone():
    """In a batch with padding, beside a sum written out token by token; sums for DPO, means for IPO."""
    policy, reference = made_gpt(), made_gpt(n_layer=1)
    known = answer_logprobs(reference, PAIRS, 2, CPU)

    def alone(model, row, said):
        log_p = model(torch.tensor([row[:-1]]))[0].log_softmax(-1)
        return sum(log_p[i, row[i + 1]].item() for i in range(len(row) - 1) if said[i + 1])

    for i, pair in enumerate(PAIRS):
        c, r = ((alone(policy, row, said) - alone(reference, row, said), sum(said))
                for row, said in ((pair.chosen, pair.said_chosen), (pair.rejected, pair.said_rejected)))  # fmt: skip
        for per_token, expected in ((False, c[0] - r[0]), (True, c[0] / c[1] - r[0] / r[1])):
            found = margins(policy, dpo_batch(PAIRS, known), per_token=per_token)[i].item()
            assert found == pytest.approx(expected, abs=1e-4)
        own_loss = compared(policy, dpo_batch(PAIRS, known), per_token=False)[1][i].item()
        by_hand = -alone(policy, pair.chosen, pair.said_chosen) / sum(pair.said_chosen)
        assert own_loss == pytest.approx(by_hand, abs=1e-4)


def test_at_the_start_every_loss_is_that_of_no_margin():
    """Policy equals reference: log 2, and the others' values at 0. With dropout in it the reference would differ."""
    policy = made_gpt(dropout=0.5).train()
    reference = frozen(policy)
    known = answer_logprobs(reference, PAIRS, 2, CPU)
    torch.testing.assert_close(answer_logprobs(reference, PAIRS, 3, CPU), known)
    margin = margins(policy.eval(), dpo_batch(PAIRS, known))
    assert margin.abs().max() < 1e-5
    expected = {"sigmoid": math.log(2), "ipo": 25.0, "hinge": 1.0, "conservative": math.log(2), "robust": math.log(2),
                "none": 0.0}  # fmt: skip
    for loss, value in expected.items():
        smoothing = 0.1 if loss in ("conservative", "robust") else 0.0
        found = LOSSES[loss](margin, DPOConfig(loss=loss, beta=0.1, label_smoothing=smoothing))
        torch.testing.assert_close(found, torch.full((3,), value, dtype=found.dtype), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "none"])
def test_a_step_makes_the_chosen_answer_likelier(loss):
    """Trap: a swapped pair, or a sign. For all relatives alike."""
    policy = made_gpt()
    settings = DPOConfig(loss=loss, label_smoothing=0.1 if loss in ("conservative", "robust") else 0.0)
    batch = dpo_batch(PAIRS, answer_logprobs(frozen(policy), PAIRS, 4, CPU))
    LOSSES[loss](margins(policy, batch, per_token=loss == "ipo"), settings).mean().backward()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter -= 1e-4 * parameter.grad / parameter.grad.norm().clamp(min=1e-9)
    assert margins(policy, batch).mean() > 0
    turned = dpo_batch([swapped(pair) for pair in PAIRS], batch.reference.view(2, -1).flip(0).T)
    torch.testing.assert_close(margins(policy, turned), -margins(policy, batch))


def test_the_reference_does_not_learn_with_the_policy():
    """Trap: a reference that is the policy itself; its margins would be 0 for ever."""
    policy = made_gpt()
    reference = frozen(policy)
    before = answer_logprobs(reference, PAIRS, 4, CPU)
    with torch.no_grad():
        policy.blocks[0].mlp.up_proj.weight += 1.0
    policy.train()
    assert torch.equal(answer_logprobs(reference, PAIRS, 4, CPU), before)
    assert not torch.equal(answer_logprobs(policy.eval(), PAIRS, 4, CPU), before)
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_micro_batches_give_the_gradient_of_the_whole():
    """Trap: answers of unequal length in micro-batches; a pair counts as one, whatever its length."""
    pairs = PAIRS + [swapped(pair) for pair in PAIRS[:1]]
    known = answer_logprobs(made_gpt(n_layer=1), pairs, 4, CPU)

    def gradient(parts: int) -> torch.Tensor:
        policy = made_gpt()
        for part in range(parts):
            here = slice(part * 4 // parts, (part + 1) * 4 // parts)
            margin = margins(policy, dpo_batch(pairs[here], known[here]))
            (LOSSES["sigmoid"](margin, DPOConfig()).mean() / parts).backward()
        return policy.blocks[0].mlp.up_proj.weight.grad

    torch.testing.assert_close(gradient(4), gradient(1), rtol=1e-6, atol=1e-9)


# --- the comparison -----------------------------------------------------------------------------------------------


@pytest.fixture
def chat(chat_model):
    return load_pretrained(chat_model), Template(Tokenizer.load(chat_model))


QUESTIONS = [[{"role": "user", "content": f"say {i}"}] for i in range(4)]


def test_a_policy_that_is_its_reference_wins_half_at_no_distance(chat):
    """KL at step 0 is 0 exactly, and every answer a tie: the judge has no leaning."""
    gpt, template = chat
    length = {"long": lambda questions, said: [float(len(one.tokens)) for one in said]}
    bold = SamplingConfig(max_new_tokens=8, temperature=1.0)
    comparison = Comparison(frozen(gpt), template, QUESTIONS, length, bold, 0)
    found = comparison.scores(gpt)
    assert found["kl_per_token"] == 0.0 and found["long_win_rate"] == 0.5 and found["long_now"] == found["long_before"]
    assert comparison.scores(gpt, 2)["long_win_rate"] == 0.5


def test_the_divergence_is_that_of_the_whole_vocabulary(chat):
    """At the answers' own tokens, the end among them: a mean over tokens, not over answers."""
    gpt, _ = chat
    other = frozen(gpt)
    with torch.no_grad():
        other.token_embedding.weight *= 1.5
    said = [Said([1, 2], [3, 4], "", True), Said([5], [6], "", False)]
    total = 0.0
    for one in said:
        row, begin = [*one.prompt, *one.completion(7)], len(one.prompt)
        p, q = (model.eval()(torch.tensor([row]))[0, begin - 1 : len(row) - 1].double().log_softmax(-1)
                for model in (gpt, other))  # fmt: skip
        total += float((p.exp() * (p - q)).sum().detach())
    assert kl_per_token(gpt, other, said, 7) == pytest.approx(total / 4, rel=1e-4) and total > 0


def test_answers_end_within_the_context_and_are_the_same_again(chat):
    """A reward model must be able to read question, answer and <|end|>."""
    gpt, template = chat
    sampling = SamplingConfig(max_new_tokens=500, temperature=1.0)
    said = answers(gpt.train(), template, QUESTIONS, sampling, 3)
    assert all(len(one.prompt) + len(one.tokens) < 32 and one.tokens for one in said) and gpt.training
    assert said == answers(gpt, template, QUESTIONS, sampling, 3) != answers(gpt, template, QUESTIONS, sampling, 4)


def test_a_reward_model_judges_where_the_reference_is(chat, chat_model, tmp_path, monkeypatch):
    """Beside models on a GPU, one on the CPU would be what every look waits for. Here "meta" stands for a GPU."""
    gpt, template = chat
    save_reward_model(with_scalar_head(gpt), template.tokenizer, tmp_path)
    run = presets.from_command_line(["dpo", "--init", str(chat_model), "--judge", str(tmp_path)])
    judge = load_judge(tmp_path, template.tokenizer, torch.device("meta"))
    comparison = open_comparison(run, run.stage, gpt, [], template, judge)
    where = []
    monkeypatch.setattr(dpo_stage, "score_rows", lambda model, rows: where.append(model.lm_head.weight.device.type))
    comparison.rules["reward"]([], [])
    assert where == ["meta"]


def test_without_problems_nothing_is_said_about_them(chat):
    """Not a number, and no zero that could be taken for one."""
    assert math.isnan(exact_match(*chat, 0, 0))


# --- the journey --------------------------------------------------------------------------------------------------


def test_the_estimate_of_memory_knows_of_reference_judge_and_both_answers(chat_model, jsonl, tmp_path):
    """A pair has two rows; the reference is there as long as the policy, and so is a reward model that judges."""
    (judge := tmp_path / "judge").mkdir()
    save_reward_model(with_scalar_head(load_pretrained(chat_model)), Tokenizer.load(chat_model), judge)
    argv = ["dpo", "--init", chat_model, "--data", jsonl, "--judge", judge, "--out-dir", tmp_path / "dpo", *SHORT]
    run = presets.from_command_line(list(map(str, argv)))
    prepared = run.stage.prepare(run, Group(0, 1, CPU), torch.float32, None)
    batch = next(prepared.stage.batches)
    counted, _ = counted_bytes(prepared, run, batch)
    assert standing(prepared, run.optim, torch.float32) == counted
    assert prepared.rows_each * run.batches.batch_size == len(batch.ids) and len(prepared.frozen) == 2


@pytest.fixture
def dpo(monkeypatch, tmp_path, chat_model, jsonl):
    def run(*argv, init=chat_model, data=jsonl, out="dpo"):
        argv = ["dpo", "--init", init, "--data", data, "--out-dir", tmp_path / out, *SHORT, *argv]
        return run_script("train.py", argv, monkeypatch)

    return run


@pytest.mark.parametrize("loss", [["sigmoid"], ["ipo"], ["robust", "--label-smoothing", "0.1"]])
def test_a_policy_learns_which_answers_are_liked(dpo, tmp_path, loss):
    """Forty steps on forty pairs: held-out pairs are ranked, and the folder chats."""
    result = dpo("--max-steps", "40", "--save-every", "40", "--lr", "0.003", "--loss", *loss)
    assert result.status == 0, result.err
    final = read_events(tmp_path / "dpo")[-1]
    assert final["accuracy"] == 1.0 and final["kl_per_token"] > 0
    assert "minigpt chat" in result.err and "nats per token from the base model" in result.err
    assert " steps of 4 pairs, into" in result.err
    assert (tmp_path / "dpo" / "chat_template.jinja").exists()


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "none"])
def test_the_loss_of_training_and_that_of_a_look_are_one_quantity(dpo, jsonl, tmp_path, loss):
    """They stand in one line and on one axis. Here both are of the same forty pairs, before anything was learnt."""
    result = dpo("--val-data", jsonl, "--batch-size", "40", "--max-steps", "1", "--warmup-steps", "0", "--lr", "1e-12",
                 "--loss", loss, "--chosen-weight", "2")  # fmt: skip
    assert result.status == 0, result.err
    train, final = read_events(tmp_path / "dpo")
    assert train["loss"] == pytest.approx(final["loss"], rel=1e-5) and final["loss"] > 2 * train["chosen_loss"] * 0.999


def test_a_run_prints_the_lines_that_make_its_controls(dpo, tmp_path, monkeypatch):
    """And they do: labels of a coin teach no order, copied answers no difference. The last tells of all."""
    printed = [shlex.split(line)[2:] for line in result_lines(dpo("--loss", "ipo", "--beta", "0.1"))]
    assert [argv[-4:-2] for argv in printed] == [["--labels", "shuffled"], ["--chosen-weight", "0.5"]]
    assert "ipo" in printed[0] and "ipo" not in printed[1]
    for argv in printed:
        result = run_script("train.py", argv, monkeypatch)
        assert result.status == 0, result.err
    assert "this is a control: chosen answers copied" in result.err and "not run yet" not in result.err
    for name in ("dpo", "dpo-shuffled"):
        final = read_events(tmp_path / name)[-1]
        assert f"{final['accuracy']:.1%} ranked right, {final['kl_per_token']:.3f} nats" in result.err


def result_lines(result) -> list[str]:
    """The commands that a run tells of for its controls."""
    assert result.status == 0, result.err
    return [line for line in result.err.splitlines() if line.startswith("    python train.py")]


def test_a_reward_model_may_judge_the_answers(dpo, chat_model, jsonl, tmp_path, monkeypatch):
    """For pairs of one's own, whose rule nobody wrote down."""
    argv = ["reward", "--init", chat_model, "--data", jsonl, "--out-dir", tmp_path / "reward", *SHORT[:-4]]
    assert run_script("train.py", argv, monkeypatch).status == 0
    result = dpo("--judge", tmp_path / "reward")
    assert result.status == 0 and "by the reward model: " in result.err, result.err


def test_a_run_that_was_stopped_ends_in_the_same_bits(dpo, tmp_path):
    """A lost checkpoint is a crash after step 4. The reference is read, not computed again, and is still the base."""
    dpo("--dropout", "0.1", "--accumulate", "2")
    before = file_digest(tmp_path / "dpo" / "model.safetensors")
    known = file_digest(tmp_path / "dpo" / "data" / "reference.safetensors")
    scores = read_events(tmp_path / "dpo")[-1]
    shutil.rmtree(tmp_path / "dpo" / "checkpoint-6")
    result = dpo("--dropout", "0.1", "--accumulate", "2")
    assert result.status == 0 and file_digest(tmp_path / "dpo" / "model.safetensors") == before, result.err
    assert file_digest(tmp_path / "dpo" / "data" / "reference.safetensors") == known
    again = read_events(tmp_path / "dpo")[-1]
    assert all(again[name] == scores[name] for name in ("loss", "accuracy", "kl_per_token"))


def test_another_base_model_under_the_same_name_is_noticed(dpo, chat_model, tmp_path):
    """Its log-probabilities are no longer those of the file: the margin would be from elsewhere."""
    base = shutil.copytree(chat_model, tmp_path / "base")
    assert dpo(init=base).status == 0
    assert dpo(init=base, out="other").status == 0
    shutil.copy(tmp_path / "other" / "model.safetensors", base / "model.safetensors")
    result = dpo("--max-steps", "8", init=base)
    assert result.status == 2 and "is not the model that" in result.err, result.err


def test_the_projects_own_pairs_need_no_file(dpo, tmp_path, monkeypatch):
    """Their rule judges the answers. The questions need a context that holds them."""
    story, talk = tmp_path / "story.txt", tmp_path / "talk.jsonl"
    story.write_text("How does a module work? " * 400, encoding="utf-8")
    talk.write_text("".join(json.dumps({"instruction": f"say {i}", "output": f"{i}"}) + "\n" for i in range(9)))
    short = ["--max-steps", "1", "--threads", "1", "--device", "cpu", "--sample-every", "0", "--batch-size", "2"]
    shape = ["--n-layer", "1", "--n-head", "2", "--n-kv-head", "1", "--n-embd", "16", "--vocab-size", "256"]
    for argv in (["quick", *shape, "--data", story, "--out-dir", tmp_path / "wide"],
                 ["sft", "--init", tmp_path / "wide", "--data", talk, "--out-dir", tmp_path / "chat"]):  # fmt: skip
        assert run_script("train.py", [*argv, *short], monkeypatch).status == 0
    result = dpo("--examples", "60", "--max-steps", "2", "--problems", "1", init=tmp_path / "chat", data="lessons")
    assert result.status == 0 and "by the lessons' own rule: " in result.err, result.err
    assert "right answers: " in result.err
    assert "problems solved: 0.0% before" in result.err


@pytest.mark.parametrize(("argv", "message"), [
    (["--init", "none"], "name its folder with --init"),
    (["--judge", "nowhere"], "nowhere"),
    (["--beta", "0"], "--beta 0.0"),
    (["--loss", "none", "--chosen-weight", "0"], "more with --loss none"),
    (["--loss", "robust"], "--loss robust with --label-smoothing 0.0"),
    (["--label-smoothing", "0.1"], "--loss sigmoid with --label-smoothing 0.1"),
    (["--loss", "robust", "--label-smoothing", "0.5"], "--label-smoothing 0.5"),
    (["--prompts", "0"], "--prompts 0"),
])  # fmt: skip
def test_a_wrong_setting_is_one_line_and_status_two(dpo, tmp_path, argv, message):
    """And no folder with half a run in it."""
    result = dpo(*argv)
    assert result.status == 2 and message in result.err, result.err
    assert not (tmp_path / "dpo" / "run.json").exists()


def test_a_language_model_is_no_judge(dpo, chat_model):
    """It would give logits for rewards."""
    result = dpo("--judge", chat_model)
    assert result.status == 2 and "is no reward model" in result.err, result.err


def test_a_model_that_never_chatted_is_sent_to_fine_tuning(dpo, text_model):
    """One line that names the command."""
    result = dpo(init=text_model)
    assert result.status == 2 and f"python train.py sft --init {text_model}" in result.err, result.err
