"""What may an answer look like?

A regular expression or a JSON schema becomes, for every moment of writing, the set of tokens that may come next: so
that what a model writes matches, whatever it would rather say, and also when the token limit cuts it.

    nodes                a grammar over bytes, and what it costs to finish
    characters           sets of characters, as the bytes they are in UTF-8 and in JSON
    automaton            the machine that reads a text by such a grammar, byte by byte
    regular_expression   one way to write a grammar;
    json_text            JSON's own grammar, and
    json_types, json_oneof, json_schema    another way: what a schema allows
    token_trie           a vocabulary as a tree of bytes
    state_table          where each token leads from each state
    constraint           the masks, with the token limit kept

In:  a pattern or a schema, and the bytes of each token (never a tokenizer).
Out: at each step a mask over the vocabulary.
"""
