"""One corpus and one tokenizer of each pattern, trained once for all tests of this room."""

import argparse
import inspect
import json.decoder
import textwrap

import pytest

from minigpt.tokenizer import Tokenizer

WORLD = """Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Портрет старого друга, 1842.
天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。 いろはにほへと ちりぬるを。 키스의 고유조건은 입술끼리 만나야 하고.
נבלי הודעה מעניינת 😀😃👩‍👩‍👧 ½ ³ ٣٤٥ naïve façade 'll WE'LL I'm don't can't\t\tx\r\n\r\ny  z   \n"""


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Source code, its English, and a line of many scripts."""
    return [inspect.getsource(module) for module in (argparse, json.decoder, textwrap)] + [WORLD] * 3


@pytest.fixture(scope="session", params=["gpt2", "cl100k", "o200k"])
def tokenizer(request: pytest.FixtureRequest, texts: list[str]) -> Tokenizer:
    """A tokenizer of 1,000 ids, once for each pattern."""
    return Tokenizer.train(texts, 1000, pattern=request.param)
