"""How do tokens come out?

A model gives one number per token of the vocabulary. This room turns these numbers into a choice, and the
choice into the next input, until there is enough:

    config    how bold the choice is: the flags
    sampling  logits to one token: penalty, temperature, the filters, the draw
    generate  one prompt, one sequence, one token after the other: the slow twin of everything faster

The engine knows integers, never text: an end of text is an id in `stop_ids`, and whoever wants characters (or
a stop string) decodes what it yields.

In:  a model, token ids, settings, and a random stream of the caller's.
Out: token ids, one at a time.
"""
