"""Integers in, logits out: what is a GPT?

Read in this order:

    config.py      every number and every choice that makes one GPT differ from another
    norm.py        keep activations at a size that the next layer can work with
    positions.py   how does the model know the order of its tokens? five answers, one signature
    short_conv.py  let each token know the few before it, before any attention
    cache.py       what generation keeps, so that each new token costs one token's work
    attention.py   how does a token look at the tokens before it?
    mlp.py         what does it do with what it saw?
    gpt.py         the whole: embedding, blocks, head; and how its weights begin
    evaluating.py  without dropout, for a while
    hf_config.py   which Hugging Face model is this config?
    hf_names.py    what are its weights called there?
    pretrained.py  weights and config to a folder and back

In:  ids (B, T) of int64, each below vocab_size. Whoever makes ids checks that once, where data enters: shards
     when they are opened, prompts with `check_ids` (gpt.py). The forward pass does not look at them again.
Out: logits (B, T, V); with targets, losses (B, T).

This room knows integers, never text, and nothing of what is done to a model later: adapters, quantization,
mixed precision and parallelism take a model and return a model.
"""
