"""The whole recipe in one line: from text that every Python carries to somebody who answers questions about it.

    python -m minigpt quickstart

A few minutes on two cores, without network. Nothing happens here that the chapters before do not do: this room only
calls them one after the other, and asks at the end how good the outcome is. Read in this order:

    config.py    the settings
    recipe.py    the stages: what each does, and the one figure that it is judged by
    exam.py      held-out questions, their answers judged by the lessons' own rules
    command.py   what is finished already, the table, and the chat at the end

In:  nothing; or a text of one's own, and how long each stage may learn.
Out: a folder with a run for each stage, the marks of the exam, and a model that talks.
"""
