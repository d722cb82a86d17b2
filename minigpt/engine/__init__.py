"""How do tokens come out, for one reader and for many at once?

A model gives one number per token of the vocabulary. This room turns these numbers into a choice, and the choice into
the next input, until there is enough. First for one prompt:

    config          how bold the choice is, and how much is done at once: the flags
    sampling        logits to one token: penalties, temperature, the filters, the draw
    generate        one prompt, one sequence, one token after the other: the slow twin of everything below

then for many, who come and go, each with its own wishes:

    request         what somebody asks, and what has become of it
    choose          one request's next token: its own wishes, then `sampling`
    pages           which page of the cache holds what, and who holds it: integers
    scheduler       who is computed in the next step, and how much of each: integers, too
    company         does a row's result depend on the rows beside it in torch? measured
    paged           keys and values that stay in their pages: on a GPU, and for C
    lanes           keys and values for torch, attention, and the promise that company changes no bit
    integer_linear  layers of eight-bit weights, whose sums are exact
    packed_linear   layers of four-bit weights
    integer_embedding   rows of either, looked up
    forward         the model's forward pass in few operations of torch
    graphs          on a GPU: a step that only writes, recorded once and replayed
    compiler        C where a compiler is found, once for each machine; never required
    arena           memory for weights that stay, apart from all that comes and goes
    compiled        the forward pass in one call of C, keys and values in pages: step/step.c
    draft           tokens guessed ahead, and checked together
    engine          all of it: submit, step, cancel, follow

The engine knows integers, never text: an end of text is an id in `stop_ids`, and whoever wants characters (or a stop
string) decodes what it gives.

In:  a model, token ids, settings, and a seed.
Out: token ids, as they come; the same for a request in any company.
"""
