"""What should a model read?

A corpus is a stream of documents: read from wherever `--data` points, cleaned, and split in two sides that
have no text in common, one to train on and one to be judged by. It never lies in memory: each pass streams it
again, and the same input gives the same bytes.

Read the files in this order:

    config.py          the three settings
    document.py        the unit: a text with a name, in pieces if it is long
    report.py          the rules by their ids, and the counts of what each of them dropped
    python_library.py  the default corpus: the library that every Python carries
    html_text.py       a page as plain text
    files.py           one file to documents: text, HTML, JSON lines, Parquet
    sources.py         --data to files: a folder, a glob, a URL, hf:NAME
    clean.py           one spelling for equal text; empty and repeated documents
    split.py           which side a document is on, and why it stays there
    read.py            open_corpus: all of the above in two passes

In comes a `CorpusConfig`; out go `Corpus.train()` and `Corpus.val()`, streams of `Document`, and the
`CleanReport` that says what was left out. Whether a text is any good is not asked yet: quality rules,
near-duplicates and private data are later chapters.

    $ python -m minigpt corpus --data stories/
"""
