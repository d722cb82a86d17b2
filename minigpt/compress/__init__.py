"""How much of a model can be thrown away? Bits of its weights, weights, heads: and what each costs, measured.

Everything here takes a model and returns a model; `model/` knows nothing of it. Read in this order:

    config     what can be asked for: the flags
    grid       even steps: a matrix as small integers and their scales, rounded to nearest
    quantize   a GPT whose matrices are integers; the embedding and a tied head are one of them
    inputs     what each layer is given, on real text
    gptq       rounding that makes up in the next column for what it lost in this one
    prune      weights, or whole heads and channels, that matter least; what is left of them is a smaller GPT
    distill    learn from another model's probabilities: a Stage; the way back for a pruned model
    recover    some steps of training after pruning, through the one `fit`
    choose     integers or floats? Measured for each shape of matrix, on the machine that computes
    folder     a compressed model as a run folder, and back
    measure    bytes, bits per byte, tokens per second: before and after
    command    python -m minigpt compress RUN

In:  the folder of a run, with the text it was trained on or other text.
Out: a folder that `sample.py --run` opens, and a table of what was gained and lost.
"""
