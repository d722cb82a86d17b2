"""From following requests to being preferred: which answers does somebody like better, and how does a model learn it?

What is learnt here has no target to copy: somebody, or a rule, says which of two answers is better, or how good one is.
First what every method needs, as pure functions on tensors:

    logprobs           how likely did a model find what was written? rows, the shift by one, temperature, entropy
    kl                 how far has the policy gone from its reference? k1, k2, k3, the exact one, the penalty's size
    preference_losses  one answer is better than another: Bradley-Terry, and DPO with its relatives
    advantages         was it better than expected? rewards on tokens, GAE, whitening, groups
    policy_losses      make better-than-expected tokens likelier, in small steps; from token losses to one number

then the stages, each a `Stage` for the one `fit`:

    reward             a model that says how good an answer is, learnt from pairs
    dpo                the policy itself, learnt from pairs
    rollouts           answers of the policy of this moment, from the engine, with their rewards
    ppo                rollouts against the reward model, with a critic
    grpo               groups of rollouts against a verifier, without one

One convention carries all of it. A tensor over tokens is (B, T), and its place t belongs to `targets[:, t]`, the token
after `ids[:, t]`; the target is -100 where nothing is learnt (prompt, padding), and `mask = targets != -100`. So the
shift by one is done once, where rows are made, and no function does it again. Rows are padded on the right, where a
causal model does not look, and lengths decide what is padding, never a token id: no end token is mistaken for it.

In:  conversations, pairs {"prompt", "chosen", "rejected"}, tasks with a verifier, and a model from `finetune`.
Out: a run folder, as from every stage; its log shows reward and divergence beside the control.
"""
