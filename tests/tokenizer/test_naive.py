"""The plain byte-pair encoder against an example that anyone can work by hand."""

from minigpt.tokenizer import naive

ANY = r"(?s:.+)"  # the whole text is one pre-token


def test_the_example_of_the_encyclopaedia_comes_out_as_printed():
    """aaabdaaabac -> ZabdZabac (Z=aa) -> ZYdZYac (Y=ab) -> XdXac (X=ZY).

    Source: https://en.wikipedia.org/wiki/Byte_pair_encoding, section "Original algorithm".
    """
    a, b, c, d = b"abcd"
    Z, Y, X = 256, 257, 258
    merges = naive.train(["aaabdaaabac"], 3, ANY)
    assert merges == [(a, a), (a, b), (Z, Y)]
    assert naive.encode("aaabdaaabac", merges, ANY) == [X, d, X, a, c]
    assert naive.decode([X, d, X, a, c], merges) == "aaabdaaabac"


def test_among_equally_frequent_pairs_the_smaller_ids_win():
    """Both pairs of "cab" occur once; without a rule the vocabulary would depend on hashing."""
    a, b = b"ab"
    assert naive.train(["cab"], 1, ANY) == [(a, b)]
    assert naive.train(["acab"], 1, ANY) == [(a, b)]  # (a, b), (a, c) and (c, a) tie: left first, then right


def test_replacing_goes_from_the_left_and_never_overlaps():
    assert naive.merge([1, 1, 1], (1, 1), 256) == [256, 1]
    assert naive.merge([1, 2, 1, 2, 1], (1, 2), 256) == [256, 256, 1]


def test_training_stops_when_no_pair_is_left():
    assert naive.train(["ab"], 10, ANY) == [(97, 98)]
    assert naive.train(["ab", "cd", "cd"], 10, ANY, min_frequency=2) == [(99, 100)]
