"""What is there to learn from, if nobody gives us data?

Everything that comes after pre-training needs lessons: questions with good answers, problems whose answers can be
judged, pairs of answers of which one is better. This room makes them: offline, from a seed, each with its verifier, so
that every score can be recomputed by anyone. What a model is asked is never what it was taught.

Fourteen families of problems, for skills that a rule can check:

    split              which side is a problem on? a keyed hash of what it asks; what each side may be made of
    words              the letters, names and things that problems are made of
    family             what a family is: a way to make a problem of some size, and a rule for right answers
    families_text      copy, reverse, case, spell, count, sort words, letters under a constraint
    families_number    sort digits, addition, comparison
    families_context   lookup, one hop, two hops, slots: the answer stands in what was told
    tasks              all of them: problems without end, by side and level; `grade`
    baselines          what is right without understanding
    tasks_table        one example each, and the baselines: python -m minigpt lessons tasks

Four more families, for rewards: a rule can judge them and nobody has to solve them, for many answers are right:

    puzzles            expressions, brackets, digits, letters: no part of any score, and taught by name alone

Conversations, for a tone and for knowledge:

    exchange           a question, its answer, and the rule that judges every other answer
    library_facts      what Python's own library says about itself
    wordings           how people ask for it
    python_help        questions and answers about it
    outside            what is left to others
    small_talk         greetings, "who are you?", refusals
    conversations      the whole course, several turns long
    help_baselines     what scores there without understanding

Preferences, for taste:

    preferences        pairs of answers of which one is better, by known rules
    styles             right answers in the styles that these rules judge: to be learned before the pairs
    preference_file    the same in files

In:  a family or a kind, a side, a seed; for Python help the documentation that this Python carries.
Out: problems, messages, pairs; all plain strings.
"""
