"""What should a model read?

A corpus is a stream of documents: read from wherever `--data` points, cleaned, and split in two sides that
have no text in common, one to train on and one to be judged by. It never lies in memory: each pass streams it
again, and the same input gives the same bytes.

Read the files in this order:

    config.py            the settings
    document.py          the unit: a text with a name, in pieces if it is long
    report.py            the rules by their ids, and the counts and examples of what each of them did
    python_library.py    the default corpus: the library that every Python carries
    html_text.py         a page as plain text
    files.py             one file to documents: text, HTML, JSON lines, Parquet
    sources.py           --data to files: a folder, a glob, a URL, hf:NAME
    clean.py             one spelling for equal text; what drops a document, rule after rule
    stamps.py            whether the files of a corpus are those that it was made from
    split.py             which side a document is on, and why it stays there

Cleaning worth the name, each asked for by a switch; the text may be in any language:

    chunks.py            documents cut where only their own text decides
    words.py             words, lines and word n-grams of many documents in a few numpy passes
    controls.py          --quality: characters that no reader sees
    quality.py           --quality: rules, each for a kind of junk
    boilerplate.py       --boilerplate: lines that many documents share
    near_duplicates.py   --near-duplicates: MinHash and LSH
    overlap.py           --eval-data: documents that hold the answers
    personal.py          --mask-personal, with addresses.py, account_numbers.py, phone_numbers.py
    rules.py             all of these in their order
    many.py              the documents of a stream shared out among processes
    read.py              open_corpus: the readings that it takes

In comes a `CorpusConfig`; out go `Corpus.train()` and `Corpus.val()`, streams of `Document`, and the
`CleanReport` that says what was left out or changed. Whether a text is true, kind or well written no rule here asks.

    $ python -m minigpt corpus --data stories/ --quality on --near-duplicates on
"""
