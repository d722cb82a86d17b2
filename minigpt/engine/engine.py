"""Many requests at once: `generate` for a crowd.

    engine = Engine(model)
    answer = engine.submit(Request(prompt=[1, 2, 3]))
    while answer.reason is None:
        engine.step()             # one forward pass: answer.tokens grows by none, one, or several

A request gets the tokens that `generate` would give it, whoever else is there: see `lanes.py` for the promise that
makes this exact, and `invariant` in its config for what it costs.
"""

from collections.abc import Iterator
from itertools import takewhile

import torch
from torch import Tensor

from minigpt.engine.choose import Choices, check_constraint
from minigpt.engine.compiled import CompiledForward, uncovered
from minigpt.engine.config import EngineConfig
from minigpt.engine.draft import Guesser, PromptLookup
from minigpt.engine.forward import Forward
from minigpt.engine.graphs import graphed
from minigpt.engine.pages import Pages
from minigpt.engine.request import Answer, Reason, Request
from minigpt.engine.scheduler import Scheduler, Sequence, Work
from minigpt.model.gpt import GPT, check_ids


class Engine:
    """A model, its cache, and the requests that are on their way.

    The model's weights are read when the engine is made: one that learns on needs a new engine.
    """

    def __init__(self, model: GPT, config: EngineConfig | None = None, guesser: Guesser | None = None) -> None:
        """`guesser` says how a text may go on, where the config asks for drafts; by default as it did before.

        Raises: ValueError for a cache that only the step in C has, where that cannot be.
        """
        config = config or EngineConfig()
        self.config, self.shape, self.guesser = config, model.config, guesser
        if guesser is None and config.drafts:
            self.guesser = PromptLookup()
        whole = -(-self.shape.context_length // config.page)  # pages of a full context
        count = config.max_batch * whole if config.cache_tokens is None else config.cache_tokens // config.page
        self.not_compiled = uncovered(model, config)  # why its steps are computed by torch; none: they are by C
        if self.not_compiled and config.cache_dtype == "int8":
            raise ValueError(f"--cache-dtype int8 needs the step in C: {self.not_compiled}. Use bfloat16 here.")
        if self.not_compiled:
            self.forward = graphed(Forward(model, config, count), config)
        else:
            self.forward = CompiledForward(model, config, count)
        self.scheduler = Scheduler(config, Pages(count, config.page), self.forward.store)

    @property
    def invariant(self) -> bool:
        """Whether a request gets the same bits in any company here."""
        return self.forward.invariant

    @property
    def busy(self) -> bool:
        return bool(self.scheduler.running or self.scheduler.waiting)

    def submit(self, request: Request) -> Answer:
        """Queue a request. Raises: ValueError for what this model cannot do; no other request is touched."""
        return self.begin(Answer(request))

    def begin(self, answer: Answer) -> Answer:
        """The same for an answer that somebody has prepared; one that must be empty ends here. Raises: as submit."""
        request, shape = answer.request, self.shape
        check_ids(torch.tensor(request.prompt), shape.vocab_size, "the prompt")
        if len(answer.visible) > shape.context_length:
            raise ValueError(
                f"the prompt has {len(answer.visible)} tokens and the model sees {shape.context_length}: "
                f"leave out the oldest"
            )
        if request.logit_bias:
            check_ids(torch.tensor(list(request.logit_bias)), shape.vocab_size, "logit_bias")
        if request.constraint is not None:
            check_constraint(request.constraint, shape.vocab_size)
        if answer.cursor is not None and answer.cursor.finished:
            answer.reason = "stop"
        else:
            self.scheduler.add(answer)
        return answer

    def forget(self) -> None:
        """Remember nothing of what was computed before. Raises: ValueError while requests are on their way."""
        if self.busy:
            raise ValueError("requests are on their way: wait for them or cancel them first")
        self.scheduler.pages.clear()

    @torch.inference_mode()
    def cancel(self, answer: Answer) -> None:
        """End a request now: the next step does not compute it."""
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            if sequence.answer is answer:
                self._end(sequence, "cancelled")

    @torch.inference_mode()
    def step(self) -> list[Answer]:
        """Compute once. Returns the answers that have come on, or to their end."""
        works = self.scheduler.plan()
        if not works:
            return self.scheduler.failed()
        return self._choose(works, self.forward.logits(works))

    def follow(self, answer: Answer) -> Iterator[int]:
        """The tokens of an answer as they come, the others coming on beside it. Not read to its end, it is cancelled.

        Raises: ValueError if the answer ends with an error.
        """
        shown = 0
        try:
            while answer.reason is None or shown < len(answer.tokens):
                if shown == len(answer.tokens):
                    if not self.busy:
                        raise ValueError("this answer was never begun here: give its request to `submit` first")
                    self.step()
                new = answer.tokens[shown:]
                yield from new  # meanwhile another reader may step, and there may be more
                shown += len(new)
        finally:
            self.cancel(answer)
        if answer.error is not None:
            raise ValueError(answer.error)

    # --- after the forward pass -----------------------------------------------------------------------------------

    def _choose(self, works: list[Work], logits: Tensor) -> list[Answer]:
        """Give every sequence whose newest token was computed its next one."""
        choices = Choices(logits, [work.sequence.answer for work in works for _ in range(work.choosing)])
        at, moved = 0, self.scheduler.failed()
        for work in works:
            sequence, rows = work.sequence, range(at, at + work.choosing)
            if not rows:
                self.scheduler.commit(sequence, work.count)
                continue
            self._extend(sequence, work.count, choices, rows)
            at = rows.stop
            moved.append(sequence.answer)
        return moved

    def _extend(self, sequence: Sequence, count: int, choices: Choices, rows: range) -> None:
        """Choose a token from the first row; while it is the drafted one, the next row's logits are right as well."""
        answer, drafts, kept = sequence.answer, list(sequence.drafts), 0
        sequence.drafts.clear()
        for row in rows:
            try:
                token = choices.choose(row, answer)
                ended = answer.take(token)
            except (ValueError, RuntimeError) as error:  # of this request alone: the others go on
                answer.error = str(error)
                return self._end(sequence, "error")
            if ended or kept == len(drafts) or token != drafts[kept]:
                break
            kept += 1
        if drafts:
            sequence.trust = 2 * kept + 1
        self.scheduler.commit(sequence, count - len(drafts) + kept)
        if answer.reason is not None:
            self._end(sequence, answer.reason)
        elif len(answer.visible) > self.shape.context_length:
            self._slide(sequence)
        elif self.guesser is not None:
            room = min(sequence.trust, self._room_for_drafts(answer))
            guessed = self.guesser.guess(answer, room)[:room]
            sequence.drafts = list(takewhile(lambda token: 0 <= token < self.shape.vocab_size, guessed))

    def _room_for_drafts(self, answer: Answer) -> int:
        """As many as fit into the context and into what may still be written, beside the token that comes anyway."""
        written = answer.request.sampling.max_new_tokens - len(answer.tokens)
        return min(self.config.drafts, written - 1, self.shape.context_length - len(answer.visible))

    def _slide(self, sequence: Sequence) -> None:
        """As `generate` does where the context is full: go on with its newer half, read again from position 0."""
        sequence.answer.slide(self.shape.context_length)
        self.scheduler.restart(sequence)

    def _end(self, sequence: Sequence, reason: Reason) -> None:
        sequence.answer.reason = reason
        self.scheduler.end(sequence, remember=reason != "error")
