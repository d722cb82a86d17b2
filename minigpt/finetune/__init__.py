"""From completing text to following requests.

A pre-trained model goes on with a question as its texts do: with more questions. Shown some thousand conversations, it
learns that here somebody answers. Nothing of the training loop changes, only what the loss counts: the assistant's own
words. Read in this order:

    config.py        the settings of both stages
    own_lessons.py   what the project has to teach: conversations from the room `lessons`
    examples.py      conversations to ids and masks: once, on disk, with some of them held out
    rows.py          several conversations in a row of the context, none seeing another; endless batches of such rows
    base_text.py     the text that the base model learned from: replayed, and judged by, so that it is not forgotten
    sft.py           the stage: supervised fine-tuning
    fresh.py         batches of problems that nobody has seen before, without end
    grade.py         how many of them a model solves: by family and side, with intervals and baselines
    from_nothing.py  the stage that learns them with neither base model nor data
    lora.py          sft with two thin matrices beside each large one, which alone learn; put on from outside
    adapter_file.py  those matrices in files that peft opens

In:  a base model (a run's folder or Hugging Face's) and conversations.
Out: a run folder whose model chats: `python -m minigpt chat RUN`.
"""
