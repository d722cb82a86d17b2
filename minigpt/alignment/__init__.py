"""From following requests to being preferred: which answers does somebody like better, and how does a model learn it?

What is learnt here has no target to copy: somebody, or a rule, says which of two answers is better, or how good one is.
In this order; what is a loss, an estimate or an advantage is a pure function on tensors, and reward, dpo, grpo and ppo
are stages, each a `Stage` for the one `fit`:

    config              the settings of the four stages
    logprobs            how likely did a model find what was written? rows, the shift by one, temperature, entropy
    measures            how good, and how sure: shares with intervals, calibration, correlation
    controls            what stands beside a run: the same without information, and examples to copy
    kl                  how far has the policy gone from its reference? k1, k2, k3, the exact one, the penalty's size

Learnt from pairs, of which one answer is better:

    preference_losses   Bradley-Terry, and DPO with its relatives
    preference_batches  pairs to ids, some of them held out; endless batches
    reward_model        a GPT with one number for a head: how good is this answer?
    reward              the stage that teaches it
    comparison          what does a policy answer now, and is it better than what its reference answers?
    dpo                 the stage that teaches the policy itself, without a reward model

Learnt from answers of its own, which a rule or a reward model judges:

    advantages          was it better than expected? rewards on tokens, GAE, whitening, groups
    policy_losses       make better-than-expected tokens likelier, in small steps; from token losses to one number
    problems            what is asked: puzzles and tasks of the room `lessons`
    judges              who says what an answer is worth? a verifier, a reward model, or one of two controls
    rollouts            answers of the policy of this moment, from the engine; how often each is learnt from
    pass_rates          how many held-out problems are solved, at one try and at eight
    policy_stage        what the next two have in common
    grpo                groups of answers to one problem, each compared with the others
    ppo                 answers compared with what a critic expected

One convention carries all of it. A tensor over tokens is (B, T), and its place t belongs to `targets[:, t]`, the token
after `ids[:, t]`; the target is -100 where nothing is learnt (prompt, padding), and `mask = targets != -100`. So the
shift by one is done once, where rows are made, and no function does it again. Rows are padded on the right, where a
causal model does not look, and lengths decide what is padding, never a token id: no end token is mistaken for it.

In:  conversations, pairs {"prompt", "chosen", "rejected"}, tasks with a verifier, and a model from `finetune`.
Out: a run folder, as from every stage; its log shows reward and divergence, its last lines the controls.
"""
