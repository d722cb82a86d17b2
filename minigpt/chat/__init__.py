"""What is a turn? From a text that goes on to somebody who answers.

A model that completes text has no idea of who speaks. Four special tokens give it one: three say who, the fourth says
that he has finished.

    <|user|>How long is "cat"?<|end|><|assistant|>3 letters.<|end|>

All else of a chat is made of that. Read in this order:

    conversation.py  messages; what is a conversation, and three ways in which files hold them
    template.py      messages to ids, and which of them the assistant must learn to say
    jinja.py         the same template for other programs
    extend.py        rows for the new tokens in a model that never saw them
    session.py       a conversation that goes on: history, what is left out when the context is full, streaming
    answers.py       what a model answers to many questions at once
    config.py, console.py    python -m minigpt chat

In:  a tokenizer and a model; messages, or somebody at a terminal.
Out: ids and a mask for training; text, streamed, for the reader.

Nobody can forge a turn: texts become ids one by one, in which no control token is looked for, and only then are
put between the control tokens.
"""
