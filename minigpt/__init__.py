"""minigpt: how ChatGPT was built, as running code.

Read the rooms in this order; it is also the import order: a room imports only rooms that stand before it, so
nothing you read depends on something you have not read yet (`tests/test_house.py` enforces it).

    config      how does a setting reach the code? dataclass <-> command line <-> JSON
    runtime     what machine am I on, and what survives a crash?
    corpus      what should a model read?
    tokenizer   how does text become integers?
    batches     in what order does a model see them, and how packed?
    model       integers in, logits out
    optim       how does a gradient become a step?
    training    the only training loop in the house
    grammar     what may an answer look like? regular expressions and JSON schemas as masks over tokens
    engine      how do tokens come out?
    compress    how much of a model can be thrown away? bits, weights, heads: and what each costs
    completion  how does text continue text? engine and tokenizer together, streamed
    chat        what is a turn? messages, template, session, console
    lessons     what is there to learn from? conversations, tasks and preferences that the project makes itself
    finetune    from completing text to following requests: sft, lora
    alignment   from following requests to being preferred: preferences, reward, dpo, rollouts, ppo, grpo
    export      how does another program serve it? Hugging Face's folder, llama.cpp's file
    presets     named runs, as Python functions
    quickstart  the whole recipe in one line: from text to a chat
    commands    python -m minigpt: doctor, quickstart, corpus, lessons, compress, chat, export ...

Below the rooms lies the cellar, `kernels/`: tensors in, tensors out; it never imports minigpt.
"""

ROOMS = (
    "config",
    "runtime",
    "corpus",
    "tokenizer",
    "batches",
    "model",
    "optim",
    "training",
    "grammar",
    "engine",
    "compress",
    "completion",
    "chat",
    "lessons",
    "finetune",
    "alignment",
    "export",
    "presets",
    "quickstart",
    "commands",
    "__main__",
)

__version__ = "0.1.0"
