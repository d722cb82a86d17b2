"""A reward model: where it reads, what it learns from whom, and the stage as a user meets it."""

import json
import math
import shutil
from itertools import islice

import pytest
import torch
from scripts import run_script
from small_gpt import VARIANTS, VOCAB, made_gpt

from minigpt import presets
from minigpt.alignment.config import PairsConfig, RewardConfig
from minigpt.alignment.logprobs import right_padded
from minigpt.alignment.measures import calibration_error, correlation, share
from minigpt.alignment.preference_batches import (
    PairBatches,
    TokenPair,
    labelled_pairs,
    rules_can_judge,
    swapped,
    with_shuffled_labels,
)
from minigpt.alignment.preference_losses import reward_loss
from minigpt.alignment.reward import answer_rows, judged, noisy_reward_loss, scores
from minigpt.alignment.reward_model import (
    load_reward_model,
    rewards,
    save_reward_model,
    score,
    score_rows,
    with_scalar_head,
)
from minigpt.chat.template import Template
from minigpt.completion import newest_run
from minigpt.lessons.preference_file import preference
from minigpt.model.pretrained import load_pretrained
from minigpt.runtime.checkpoint import file_digest
from minigpt.runtime.logbook import read_events
from minigpt.tokenizer import Tokenizer

SHORT = ("--max-steps", "6", "--warmup-steps", "2", "--eval-every", "3", "--eval-batches", "2", "--save-every", "2",
         "--batch-size", "4", "--threads", "1", "--device", "cpu")  # fmt: skip
ROWS = [[5, 6, 7, 0], [8, 0], [9, 10, 11, 12, 13, 0]]  # they end with 0, which is also what they are padded with


def a_pair(chosen: list[int], rejected: list[int]) -> TokenPair:
    messages = preference({"prompt": "a", "chosen": "b", "rejected": "c"})
    said = ([place > 0 for place, _ in enumerate(row)] for row in (chosen, rejected))
    return TokenPair(messages, chosen, rejected, *said, False)


# --- the model ----------------------------------------------------------------------------------------------------


def test_the_reward_is_read_at_the_last_real_token():
    """Trap: the last padding. Padding that equals the end token is none the less padding, and the end token is not."""
    model = with_scalar_head(made_gpt())
    together = rewards(model, *right_padded(ROWS))
    alone = torch.cat([rewards(model, *right_padded([row])) for row in ROWS])
    torch.testing.assert_close(together, alone)
    at_the_end = torch.stack([model(torch.tensor([row]))[0, -1, 0] for row in ROWS])
    torch.testing.assert_close(together, at_the_end)
    assert len(set(together.tolist())) == 3


def test_the_head_begins_small_and_the_body_is_the_base_models():
    """N(0, 1/(C + 1)): with the usual 0.02 rewards would hardly differ, with 1 the first loss would be ten nats."""
    wide = made_gpt(n_embd=256, n_head=2)
    model = with_scalar_head(wide)
    assert model.lm_head.weight.shape == (1, 256)
    assert 0.8 < float(model.lm_head.weight.detach().std()) * 257**0.5 < 1.2
    assert torch.equal(model.blocks[0].mlp.up_proj.weight, wide.blocks[0].mlp.up_proj.weight)
    assert torch.equal(model.lm_head.weight, with_scalar_head(wide).lm_head.weight)
    assert wide.lm_head.weight.shape[0] == VOCAB


@pytest.mark.parametrize("shape", [
    {}, {"tied": False}, {"qk_norm": False}, VARIANTS["alibi"], VARIANTS["gpt2"], {**VARIANTS["gpt2"], "bias": False},
])  # fmt: skip
def test_a_folder_gives_the_same_rewards(tmp_path, shape, chat_model):
    """In every type of Hugging Face's that has a GPT's shape, and in ours."""
    model = with_scalar_head(made_gpt(**shape)).float()
    save_reward_model(model, Tokenizer.load(chat_model), tmp_path)
    assert score_rows(load_reward_model(tmp_path), ROWS) == score_rows(model, ROWS)


@pytest.mark.parametrize("shape", [{}, {"qk_norm": False}, VARIANTS["gpt2"]])
def test_transformers_gives_the_same_rewards(tmp_path, shape, chat_model):
    """AutoModelForSequenceClassification, in a batch with padding."""
    transformers = pytest.importorskip("transformers")
    model, tokenizer = with_scalar_head(made_gpt(vocab_size=304, **shape)).float(), Tokenizer.load(chat_model)
    save_reward_model(model, tokenizer, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    rows = [[*row[:-1], Template(tokenizer).end] for row in ROWS]
    ids, real = right_padded(rows)
    ids = ids.masked_fill(~real, theirs.config.pad_token_id)
    with torch.no_grad():
        logits = theirs(input_ids=ids, attention_mask=real.long()).logits
    assert logits.shape == (3, 1)
    torch.testing.assert_close(logits[:, 0], torch.tensor(score_rows(model, rows)), rtol=1e-4, atol=1e-4)


def test_a_language_model_is_no_reward_model(chat_model, tmp_path):
    """The other way round, too: each says so before it reads a number."""
    with pytest.raises(ValueError, match="is no reward model"):
        load_reward_model(chat_model)
    save_reward_model(with_scalar_head(load_pretrained(chat_model)), Tokenizer.load(chat_model), tmp_path)
    with pytest.raises(ValueError, match="is a reward model: it scores answers, and writes none"):
        load_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a reward model"):
        presets.from_command_line(["sft", "--init", str(tmp_path)])


def test_the_newest_run_is_one_that_writes(chat_model, tmp_path):
    """After sft and reward comes chat, with no folder named."""
    for name in ("sft", "reward"):
        (tmp_path / name).mkdir()
    shutil.copytree(chat_model, tmp_path / "sft", dirs_exist_ok=True)
    save_reward_model(with_scalar_head(load_pretrained(chat_model)), Tokenizer.load(chat_model), tmp_path / "reward")
    assert newest_run(None, tmp_path) == tmp_path / "sft"


def test_conversations_are_scored_in_their_order(chat_model):
    """Sorted by length for speed, and back again."""
    template, model = Template(Tokenizer.load(chat_model)), with_scalar_head(load_pretrained(chat_model))
    talks = [[{"role": "user", "content": "say"}, {"role": "assistant", "content": "a" * n}] for n in (5, 1, 9, 3)]
    together, alone = score(model, template, talks), [score(model, template, [talk])[0] for talk in talks]
    assert together == pytest.approx(alone, abs=1e-5) and score(model, template, []) == []
    with pytest.raises(ValueError, match="does not fit into the context of 32"):
        score(model, template, [[{"role": "user", "content": "x!" * 40}, {"role": "assistant", "content": "a"}]])


def test_scoring_leaves_each_module_in_its_mode(chat_model):
    """A frozen part that does not drop out must not begin to because something was judged on the way, or failed."""
    tokenizer, model = Tokenizer.load(chat_model), with_scalar_head(load_pretrained(chat_model)).train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    score_rows(model, [[1, 2, 3]])
    judged(model, [a_pair([1, 2], [1, 3])], 1, torch.device("cpu"))
    with pytest.raises(IndexError):
        score_rows(model, [[1, tokenizer.n_vocab]])
    assert [module.training for module in model.modules()] == modes


# --- the loss and the scores --------------------------------------------------------------------------------------


def test_the_loss_falls_when_the_chosen_reward_rises():
    """Trap: a swapped pair. By hand: -ln σ(2) = 0.126928, and -ln(0.9 σ(2) + 0.1 σ(-2)) = 0.217363."""
    two, zero = torch.tensor([2.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert noisy_reward_loss(two, zero, label_noise=0.0, centering=0.0).item() == pytest.approx(0.126928, abs=1e-6)
    assert noisy_reward_loss(two, zero, label_noise=0.1, centering=0.0).item() == pytest.approx(0.217363, abs=1e-6)
    assert noisy_reward_loss(zero, two, label_noise=0.1, centering=0.0) > 1.0


def test_without_noise_it_is_bradley_terry_and_far_away_it_stays_finite():
    """A wrong label costs -ln ε at most: it cannot pull without end."""
    chosen, rejected = torch.tensor([-2000.0, 0.3, 2000.0]), torch.zeros(3)
    torch.testing.assert_close(noisy_reward_loss(chosen, rejected, label_noise=0.0, centering=0.2),
                               reward_loss(chosen, rejected, centering=0.2))  # fmt: skip
    found = noisy_reward_loss(chosen, rejected, label_noise=0.1, centering=0.0)
    torch.testing.assert_close(found[[0, 2]], torch.tensor([0.1, 0.9]).log().neg())


def test_calibration_by_hand():
    """Four answers at 0.9 of which one is wrong: 0.15 off; two at 0.1, so sure of the second, one wrong: 0.4 off."""
    probability = torch.tensor([0.91, 0.91, 0.91, 0.91, 0.09, 0.09], dtype=torch.float64)
    outcome = torch.tensor([True, True, True, False, False, True])
    assert calibration_error(probability, outcome) == pytest.approx(0.91 - 4 / 6)
    assert calibration_error(torch.tensor([1.0, 0.55]), torch.tensor([True, True])) == pytest.approx(0.225, abs=1e-6)


def test_each_rule_is_judged_by_its_own_pairs():
    """Three of shorter, of which one is ranked wrong; two of polite, one of them labelled the wrong way round."""
    rules = ("shorter", "polite", "shorter", "polite", "shorter")
    pairs = [a_pair([1, 0], [2, 0])._replace(rule=rule) for rule in rules]
    pairs[3] = pairs[3]._replace(flipped=True)
    chosen, rejected = torch.tensor([2.0, 1.0, 0.0, 1.0, 5.0]), torch.tensor([0.0, 0.0, 1.0, 2.0, 1.0])
    found = scores(chosen, rejected, pairs, RewardConfig())
    assert found["accuracy: shorter"] == pytest.approx(2 / 3) and found["accuracy: polite"] == 1.0
    assert found["interval"] == pytest.approx(1.96 * math.sqrt(0.8 * 0.2 / 5))


def test_a_judge_of_one_opinion_is_right_half_of_the_time():
    """A tie decides nothing: the constant control scores 0.5, and correlates with nothing."""
    assert share(torch.zeros(7)) == 0.5 and share(torch.tensor([1.0, -1.0, 0.0])) == 0.5
    assert correlation(torch.ones(5), torch.arange(5.0)) == 0.0
    assert correlation(torch.arange(5.0), -2 * torch.arange(5.0)) == pytest.approx(-1.0)


# --- batches ------------------------------------------------------------------------------------------------------


def test_chosen_answers_stand_above_rejected_ones():
    """What `chunk(2)` takes apart again; padded on the right."""
    batch = answer_rows([a_pair([1, 2, 3], [1, 4]), a_pair([5, 6], [5, 7, 8, 9])])
    assert batch.ids.tolist() == [[1, 2, 3, 0], [5, 6, 0, 0], [1, 4, 0, 0], [5, 7, 8, 9]]
    assert batch.real.sum(1).tolist() == [3, 2, 2, 4]


def batches(**changes) -> PairBatches:
    return PairBatches(10, list, **{"batch_size": 4, "seed": 3, **changes})


def test_every_pair_comes_once_an_epoch_and_each_batch_is_full():
    """Also where one epoch ends within a batch: a smaller batch would weigh its pairs more."""
    drawn = [i for batch in islice(batches(), 10) for i in batch]
    assert all(sorted(drawn[e : e + 10]) == list(range(10)) for e in range(0, 40, 10))
    assert drawn[:10] != drawn[10:20] and all(len(batch) == 4 for batch in islice(batches(), 6))


def test_batches_go_on_where_they_were_left_and_processes_share_them():
    """Resume equals no interruption; two processes see together what one sees."""
    whole = list(islice(batches(), 8))
    later = batches()
    later.load_state_dict({"position": 3})
    assert list(islice(later, 5)) == whole[3:]
    for alone, *parts in zip(whole, *(batches(rank=rank, world=2) for rank in (0, 1)), strict=False):
        assert [parts[i % 2][i // 2] for i in range(4)] == alone
    with pytest.raises(ValueError, match="batch_size=4 cannot be shared by 3"):
        batches(world=3)


def test_micro_batches_give_the_gradient_of_the_whole():
    """Trap: a mean of means. Here every micro-batch has as many pairs."""
    pairs = [a_pair([1 + i, 2, 3 + i, 0], [1 + i, 9, 0]) for i in range(8)]

    def gradient(parts: int) -> torch.Tensor:
        model = with_scalar_head(made_gpt())
        for part in range(parts):
            batch = answer_rows(pairs[part * 8 // parts : (part + 1) * 8 // parts])
            (reward_loss(*rewards(model, *batch).chunk(2)).mean() / parts).backward()
        return model.blocks[0].mlp.up_proj.weight.grad

    torch.testing.assert_close(gradient(4), gradient(1), rtol=1e-9, atol=1e-12)


def test_a_coin_shuffles_labels_and_always_the_same_one():
    """The control: about half of the pairs the other way round, answers and marks together."""
    pairs = [a_pair([1, i, 0], [1, i + 1, i + 2, 0]) for i in range(100)]
    mixed = with_shuffled_labels(pairs, 1)
    turned = sum(new.chosen != old.chosen for new, old in zip(mixed, pairs, strict=True))
    assert 30 < turned < 70 and mixed == with_shuffled_labels(pairs, 1) != with_shuffled_labels(pairs, 2)
    assert all(new in (old, swapped(old)) for new, old in zip(mixed, pairs, strict=True))
    assert swapped(swapped(pairs[0])) == pairs[0] and swapped(pairs[0]).flipped


def test_the_projects_own_pairs_are_meant_whatever_lies_here(tmp_path, monkeypatch):
    """A folder called lessons must not take their place, and the rules judge only answers to our own questions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lessons").mkdir()
    assert rules_can_judge(own := PairsConfig(examples=10)) and len(labelled_pairs(own, 1)[0]) == 10
    of_others = PairsConfig(data="./lessons"), PairsConfig(val_data="mine.jsonl")
    assert not any(map(rules_can_judge, of_others))
    with pytest.raises(ValueError, match="give a file of pairs"):
        labelled_pairs(PairsConfig(data="course"), 1)


# --- the journey --------------------------------------------------------------------------------------------------


@pytest.fixture
def reward(monkeypatch, tmp_path, chat_model, jsonl):
    def run(*argv, init=chat_model, data=jsonl, out="reward"):
        argv = ["reward", "--init", init, "--data", data, "--out-dir", tmp_path / out, *SHORT, *argv]
        return run_script("train.py", argv, monkeypatch)

    return run


def test_a_reward_model_learns_which_answers_are_liked(reward, tmp_path):
    """Sixty steps: shorter answers win, held-out ones too; what can be said beside it is said."""
    result = reward("--max-steps", "60", "--save-every", "60", "--lr", "0.01")
    assert result.status == 0, result.err
    assert read_events(tmp_path / "reward")[-1]["accuracy"] == 1.0
    assert "60 steps of 4 pairs, into" in result.err
    assert "the shorter answer 100.0%" in result.err and "correlation with the length" in result.err
    assert "--labels shuffled --out-dir" in result.err
    template, model = Template(Tokenizer.load(tmp_path / "reward")), load_reward_model(tmp_path / "reward")
    short, long = score(model, template, [
        [{"role": "user", "content": "say 77"}, {"role": "assistant", "content": text}] for text in ("77", "77 77 77")])
    assert short > long


def test_a_run_that_was_stopped_ends_in_the_same_bits(reward, tmp_path):
    """A lost checkpoint is a crash after step 4."""
    reward("--dropout", "0.1", "--accumulate", "2")
    before = file_digest(tmp_path / "reward" / "model.safetensors")
    shutil.rmtree(tmp_path / "reward" / "checkpoint-6")
    result = reward("--dropout", "0.1", "--accumulate", "2")
    assert result.status == 0 and file_digest(tmp_path / "reward" / "model.safetensors") == before, result.err


def test_other_pairs_under_the_same_name_are_noticed(reward, jsonl, tmp_path):
    """A run goes on with what it began with."""
    assert reward().status == 0
    jsonl.write_text(jsonl.read_text().replace('"rejected": "7 7 7"', '"rejected": "8"'), encoding="utf-8")
    result = reward("--max-steps", "8")
    assert result.status == 2 and "have changed since" in result.err, result.err


@pytest.mark.parametrize(("line", "message"), [
    ('{"prompt": ', "pairs.jsonl, line 2 is not JSON"),
    ('{"prompt": "a", "chosen": "b"}', "pairs.jsonl, line 2: rejected missing"),
    ('{"prompt": "a", "chosen": "b", "rejected": "b"}', "pairs.jsonl, line 2: chosen and rejected are equal"),
    ('{"prompt": "a", "chosen": "", "rejected": "b"}', "pairs.jsonl, line 2: prompt and chosen"),
])  # fmt: skip
def test_a_bad_line_is_named_and_nothing_is_left_behind(reward, jsonl, tmp_path, line, message):
    """File and line, status 2, no run."""
    good = jsonl.read_text(encoding="utf-8").splitlines()
    jsonl.write_text("\n".join([good[0], line, *good[1:]]), encoding="utf-8")
    result = reward()
    assert result.status == 2 and message in result.err, result.err
    assert not (tmp_path / "reward").exists()


def test_pairs_beyond_the_context_are_left_out_and_counted(reward, jsonl):
    """The rule: an answer without its end is another answer. All of them: refused."""
    long = json.dumps({"prompt": "say", "chosen": "x! " * 40, "rejected": "a"})
    jsonl.write_text(jsonl.read_text() + f"{long}\n", encoding="utf-8")
    result = reward("--val-data", jsonl)
    assert result.status == 0 and "of 41 pairs 1 are longer than the context of 32 tokens" in result.err, result.err
    jsonl.write_text(f"{long}\n{long.replace('say', 'do')}\n", encoding="utf-8")
    result = reward(out="none")
    assert result.status == 2 and "pairs are longer than the context of 32 tokens" in result.err, result.err


@pytest.mark.parametrize(("argv", "message"), [
    (["--init", "none"], "name its folder with --init"),
    (["--sample-every", "3"], "a reward model judges and writes nothing; use 0"),
    (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
    (["--data", "lesson"], "give a file of pairs (JSONL), or lessons"),
    (["--noise", "0.5"], "noise 0.5 must be at least 0 and below 0.5"),
    (["--label-noise", "0.7"], "--label-noise 0.7"),
    (["--centering", "-1"], "--centering -1.0"),
])  # fmt: skip
def test_a_wrong_setting_is_one_line_and_status_two(reward, tmp_path, argv, message):
    """And no folder with half a run in it."""
    result = reward(*argv)
    assert result.status == 2 and message in result.err, result.err
    assert not (tmp_path / "reward" / "run.json").exists()


def test_a_model_that_never_chatted_is_sent_to_fine_tuning(reward, text_model):
    """One line that names the command."""
    result = reward(init=text_model)
    assert result.status == 2 and f"python train.py sft --init {text_model}" in result.err, result.err
