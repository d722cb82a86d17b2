"""How does another program serve the same model? The same weights and the same tokenizer, in its own format.

Read in this order:

    config.py          what can be asked for
    hugging_face.py    a folder for transformers and vLLM; transformers, if installed, says whether it agrees
    gguf_model.py      what llama.cpp calls a model of ours, its settings and its weights
    gguf_tokenizer.py  how llama.cpp cuts text and merges; where that is not quite how we do it
    gguf_file.py       one file with all of it, in four precisions
    command.py         python -m minigpt export RUN

In:  the folder of a run or of a checkpoint, or any folder that `load_pretrained` opens.
Out: a folder in Hugging Face's layout, or a .gguf file.

A shape that the other program has no name for is refused, with the setting at fault; what it reads nearly, but not
exactly as we do, is written and said aloud.
"""
