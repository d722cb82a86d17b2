"""python -m minigpt: the smaller commands beside train.py and sample.py stand in commands.py."""

import sys

from minigpt.runtime.console import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        from minigpt.commands import main  # only now, where Ctrl+C is heeded

        main(sys.argv[1:])
