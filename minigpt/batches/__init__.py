"""In what order does a model see tokens, and how are they packed?

Documents stand end to end in one long stream of token ids on disk. Training walks it in a shuffled order
that is a function of (seed, step), so that a resumed run sees exactly the batches it would have seen;
evaluation walks it once, straight. Several processes share each batch row by row.

Read the files in this order:

    config.py      the two settings
    shard_file.py  the format of one file of tokens, and how damage shows
    shards.py      several of them as one stream: written all or nothing, read through memory maps
    packing.py     documents to a stream, and the borders between them for the attention mask
    shuffle.py     a shuffled order of any length that is computed, not stored
    loader.py      the endless shuffled batches of training, and the straight pass of evaluation
    prefetch.py    the next batch, fetched in the background

In come `corpus` documents and a tokenizer; out go `Batch`es: ids (B, T), targets (B, T) and, on request, the
document of each token (B, T).
"""
