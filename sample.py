"""Let a trained GPT write: `python sample.py --prompt "def "` streams text from the newest run.

    python sample.py --run out/quick --prompt "import " --num-samples 3 --seed 7
    python sample.py --prompt-file poem.txt            or --prompt - to read standard input
    python sample.py --prompt "x = " --matching "[0-9]+" what comes matches a regular expression, or --schema FILE
    python sample.py --run some/folder                 any folder in Hugging Face's layout that we can read
"""

import sys
from dataclasses import dataclass, field, replace

from minigpt import config
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.runtime.config import MachineConfig
from minigpt.runtime.console import one_line_errors, say

USAGE = """\
python sample.py [--run FOLDER] [--prompt TEXT] [--flag value ...]

Continue text with a trained model. --prompt may be given several times; - reads standard input."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    run: str | None = None  # the run's folder, or any checkpoint; none: the newest run in out/
    prompt: tuple[str, ...] = ()  # the text to continue; - reads standard input; repeat for several
    prompt_file: tuple[str, ...] = ()  # read a prompt from a file; repeat for several
    num_samples: int = 1  # continuations of each prompt
    stop: tuple[str, ...] = ()  # end before this text; repeat for several
    matching: str | None = None  # a regular expression that the continuation must match
    schema: str | None = None  # a file with a JSON schema that it must meet
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"--num-samples {self.num_samples}: needs at least 1")
        if "" in self.stop:
            raise ValueError("--stop is empty: every text would end before its first character")


def main() -> int:
    wish = config.from_command_line(SampleConfig(), sys.argv[1:], USAGE)
    # torch is imported only now: --help and a mistyped flag are answered at once
    from minigpt.completion import complete, constrained, load_run, newest_run, read_prompts, wanted_grammar
    from minigpt.engine.engine import Engine
    from minigpt.model.gpt import parameter_count

    folder = newest_run(wish.run)
    prompts, grammar = read_prompts(wish.prompt, wish.prompt_file), wanted_grammar(wish.matching, wish.schema)
    model, tokenizer = load_run(folder, wish.machine, wish.engine)
    say(f"{folder}: {parameter_count(model.config):,} parameters")
    wanted = [(prompt, wish.machine.seed + number) for prompt in prompts for number in range(wish.num_samples)]
    engine = Engine(model, replace(wish.engine, max_batch=min(wish.engine.max_batch, len(wanted))))
    del model  # the engine has what it needs of it, laid out otherwise
    constraint = constrained(tokenizer, grammar)
    texts = [complete(engine, tokenizer, prompt, wish.sampling, seed=seed, stop=wish.stop, constraint=constraint,
                      on_slide=warn_of_sliding) for prompt, seed in wanted]  # fmt: skip
    for (prompt, _), text in zip(wanted, texts, strict=True):  # they come on together, and are shown one by one
        print(prompt, end="", flush=True)
        for piece in text:
            print(piece, end="", flush=True)
        print()
    return 0


def warn_of_sliding(kept: int) -> None:
    say(f"\n[the context is full: the model now sees only the newest {kept} tokens and what follows]")


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
