"""The step in C computes what the step in torch does; where it cannot be compiled, torch computes."""

import ctypes
import os
import subprocess

import pytest
import torch
from small_gpt import VARIANTS, VOCAB, asked, finished, made_gpt
from torch import Tensor, nn

from minigpt.compress.grid import Grid
from minigpt.compress.quantize import linear_layers, quantize, to_floats
from minigpt.engine import compiled, compiler
from minigpt.engine.config import EngineConfig, SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.request import Answer
from minigpt.model.gpt import GPT

LIKELIEST = SamplingConfig(temperature=0, max_new_tokens=12)
SHAPES = VARIANTS | {
    "relu2": {"mlp": "relu2", "bias": True}, "head of 10": {"n_head": 3, "n_embd": 24, "head_dim": 10},
    "head of 80": {"head_dim": 80}, "odd widths": {"n_embd": 20, "mlp_width": 37, "vocab_size": 43},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _a_compiler_is_there():
    try:
        compiler.library()
    except compiler.NotCompiled as reason:
        pytest.skip(str(reason))


def float_gpt(**changes) -> GPT:
    return made_gpt(**{"context_length": 32, **changes}).float()


def logits_of(engine: Engine) -> dict[tuple[int, int], Tensor]:
    """The logits of everything some requests choose from: {(seed, how many tokens before): (V,)}"""
    seen: dict[tuple[int, int], Tensor] = {}
    compute = engine.forward.logits

    def recorded(works):
        rows = compute(works)
        at = 0
        for work in works:
            for i in range(work.choosing):
                before = work.sequence.computed + work.count - work.choosing + i
                seen[work.sequence.answer.request.seed, before] = rows[at].clone()
                at += 1
        return rows

    engine.forward.logits = recorded
    prompts = [[(7 * i * j + 3) % VOCAB for i in range(n)] for j, n in enumerate([1, 5, 9, 20, 17, 9])]
    finished(engine, [asked(prompt, seed, LIKELIEST) for seed, prompt in enumerate(prompts)])
    return seen


def strayed(gpt: GPT, truth: GPT, **settings) -> float:
    """The largest difference of the logits from those that torch computes of `truth`, as a share of their size."""
    small = {"max_batch": 3, "page": 4, "chunk": 7, "chunk_beside": 5}
    engine = Engine(gpt, EngineConfig(**{**small, **settings}))
    assert engine.not_compiled is None
    ours, right = logits_of(engine), logits_of(Engine(truth, EngineConfig(**small, compiled=False)))
    assert set(ours) == set(right) and len(ours) == 6 * 12
    return max(float((ours[place] - row).abs().max() / row.abs().max()) for place, row in right.items())


@pytest.mark.parametrize("variant", SHAPES)
def test_floats_are_as_in_torch(variant):
    """Every shape of model, widths that fill no vector, pages of 4 and of 16, prompts in chunks, a crowd."""
    gpt = float_gpt(**SHAPES[variant])
    assert strayed(gpt, gpt) < 2e-6
    assert strayed(gpt, gpt, page=16, max_batch=16) < 2e-6


@pytest.mark.parametrize("cache_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("variant", ["rope", "window", "grouped", "alibi", "head of 10", "short conv"])
def test_a_narrow_cache_costs_its_rounding_and_no_more(variant, cache_dtype):
    """Half a last place of eight bits is 0.4 %; a scale or a place mixed up would cost everything."""
    gpt = float_gpt(**SHAPES[variant])
    assert 1e-6 < strayed(gpt, gpt, cache_dtype=cache_dtype) < 0.02


def test_eight_bits_are_as_in_torch():
    """Sums of integers are exact, so that only the floats around them may differ."""
    gpt = quantize(float_gpt(n_embd=64, mlp_width=96, bias=True, short_conv=2), Grid(8))
    assert strayed(gpt, gpt) < 2e-6


class RoundedRows(nn.Linear):
    """What the step in C does with four bits: the floats they stand for, times rows rounded to eight."""

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True) / 127 + 1e-30
        return super().forward((x / scale).round() * scale)


@pytest.mark.parametrize("group", [32, 64])
def test_four_bits_are_the_floats_they_stand_for(group):
    """torch's own product for them rounds rows otherwise, so that it is no judge.

    In half of all models a number lies so near between two of the eight bits that C and torch round it to different
    sides. Nothing else differs: the models without one agree to the last bits.
    """
    found = []
    for n_embd in range(64, 64 + 8 * 32, 32):
        gpt = quantize(float_gpt(n_embd=n_embd, mlp_width=128, short_conv=2), Grid(4, group))
        truth = to_floats(gpt)
        for name, layer in linear_layers(truth).items():
            rounded = RoundedRows(layer.in_features, layer.out_features, bias=False)
            rounded.weight = layer.weight
            truth.set_submodule(name, rounded)
        found.append(strayed(gpt, truth))
    assert min(found) < 2e-6 and max(found) < 0.05, found


def test_python_and_c_agree_on_what_lies_where():
    """A field more on one side, and every number after it would be read from the wrong place."""
    theirs = list((ctypes.c_int32 * 5).in_dll(compiler.library(), "sizes"))
    ours = (compiled._Linear, compiled._Norm, compiled._Block, compiled._Model, compiled._Step)
    assert theirs == [ctypes.sizeof(structure) for structure in ours]


def test_threads_change_no_bit(monkeypatch):
    gpt = quantize(float_gpt(n_embd=64, mlp_width=96), Grid(8))
    config = EngineConfig(max_batch=3)
    alone = logits_of(Engine(gpt, config))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shared = logits_of(Engine(gpt, config))
    assert all(torch.equal(alone[place], shared[place]) for place in alone)


def test_what_is_not_finite_is_not_hidden():
    """Rounding to eight bits, the largest score and e^x could each swallow a NaN: the engine must see it to say so."""
    broken = [float_gpt(), quantize(float_gpt(), Grid(8)), float_gpt(mlp="relu2")]
    for gpt in broken[:2]:
        gpt.blocks[0].attention_norm.weight.data[3] = float("nan")
    broken[2].blocks[1].mlp.up_proj.weight.data[3] = float("nan")
    for gpt in broken:
        [answer] = finished(Engine(gpt), [asked([1, 2, 3])])
        assert answer.reason == "error" and "not finite" in answer.error


@pytest.mark.parametrize("cache_dtype", ["float32", "int8"])
def test_slopes_keep_the_promise(cache_dtype):
    """A score of ALiBi's is a sum of two products: which is rounded first must not depend on how many are computed."""
    gpt = float_gpt(position="alibi", n_head=3, n_kv_head=1, n_embd=48)
    alone = logits_of(Engine(gpt, EngineConfig(max_batch=1, chunk=1, cache_dtype=cache_dtype)))
    crowd = logits_of(Engine(gpt, EngineConfig(max_batch=6, chunk=64, page=4, cache_dtype=cache_dtype)))
    assert all(torch.equal(alone[place], crowd[place]) for place in alone)


def test_who_guesses_more_than_asked_is_not_followed():
    """Beyond the room that is set aside, C would write over other memory."""

    class Talkative:
        def guess(self, answer: Answer, count: int) -> list[int]:
            return [1] * (count + 50)

    gpt = float_gpt()
    engine = Engine(gpt, EngineConfig(max_batch=1, drafts=1), guesser=Talkative())
    [answer] = finished(engine, [asked([1, 2, 3], sampling=LIKELIEST)])
    assert answer.tokens == finished(Engine(gpt), [asked([1, 2, 3], sampling=LIKELIEST)])[0].tokens


def test_a_page_that_held_garbage_harms_nobody():
    """Pages are not cleared: what lies beyond a row's position, NaN too, must not be looked at."""
    gpt = float_gpt()
    engine = Engine(gpt, EngineConfig(max_batch=2, page=4))
    clean = logits_of(engine)
    engine.forget()
    for array in engine.forward.store.arrays.values():
        array.fill_(float("nan"))
    dirty = logits_of(engine)
    assert all(torch.equal(clean[place], dirty[place]) for place in clean)


# --- other machines -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[("-mavx2", "-mfma"), ()], ids=["avx2", "plain"])
def elsewhere(request, tmp_path_factory) -> ctypes.CDLL:
    """step.c for another machine than this one."""
    if request.param and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("this machine has no AVX2")
    made = tmp_path_factory.mktemp("library") / "step.so"
    flags = [*compiler.FLAGS, "-w", *request.param, str(compiler.SOURCE), "-o", str(made), "-lm"]
    subprocess.run([compiler.found(), *flags], check=True)
    return ctypes.CDLL(str(made))


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_a_machine_without_this_ones_instructions_computes_the_same(bits, elsewhere, monkeypatch):
    """Integers are multiplied in three ways: with VNNI, with AVX2 and in plain C."""
    gpt = float_gpt(n_embd=64, mlp_width=96)
    for parameter in gpt.parameters():
        parameter.data *= 0.5 if parameter.ndim == 2 else 1  # calmer: a row rounded up for down is not magnified
    if bits < 32:
        gpt = quantize(gpt, Grid(bits, None if bits == 8 else 32))
    here = logits_of(Engine(gpt))
    monkeypatch.setattr(compiled, "library", lambda: elsewhere)
    there = logits_of(Engine(gpt))
    assert max(float((here[place] - there[place]).abs().max()) for place in here) < 1e-3


# --- where C is not possible --------------------------------------------------------------------------------------


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_model_that_c_does_not_know_is_computed_by_torch():
    """Whatever is put in place of a linear layer from outside must count."""
    gpt = float_gpt()
    layer = gpt.blocks[0].mlp.down_proj
    own = Doubled(layer.in_features, layer.out_features, bias=False)
    own.weight = layer.weight
    gpt.blocks[0].mlp.down_proj = own
    assert "down_proj is a Doubled" in Engine(gpt).not_compiled
    hooked = float_gpt()
    hooked.token_embedding.register_forward_hook(lambda module, ids, x: 2 * x)
    assert "token_embedding has a hook" in Engine(hooked).not_compiled
    mixed = float_gpt(short_conv=2)
    mixed.short_conv = nn.Identity()
    assert "short_conv is a Identity" in Engine(mixed).not_compiled
    wide, short, narrow = float_gpt(), float_gpt(), float_gpt()
    wide.blocks[1].mlp = float_gpt(mlp_width=48).blocks[1].mlp
    short.blocks = short.blocks[:1]
    narrow.blocks[0].attention_norm.to(torch.bfloat16)
    for odd in (wide, short, narrow):
        assert Engine(odd).not_compiled
    assert "float32 on a CPU" in Engine(made_gpt()).not_compiled
    assert "--compiled off" in Engine(float_gpt(), EngineConfig(compiled=False)).not_compiled


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"MINIGPT_ENGINE": "torch"}, "asks for torch"),
        ({"PATH": "/nowhere", "CC": ""}, "no C compiler is found"),
        ({"CC": "false", "PATH": "/bin:/usr/bin"}, "cannot compile"),
        ({"XDG_CACHE_HOME": "/dev/null"}, "cannot be stored"),
        ({"XDG_CACHE_HOME": "", "HOME": ""}, "cannot be stored"),
    ],
)
def test_without_a_compiler_torch_computes_and_says_why(variables, reason, monkeypatch):
    if "HOME" in variables:  # and nobody knows this user's: as in many containers
        monkeypatch.setattr(compiler.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.setattr(compiler, "_attempt", compiler._attempt.__wrapped__)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    engine = Engine(float_gpt())
    assert reason in engine.not_compiled
    assert len(finished(engine, [asked([1], sampling=LIKELIEST)])[0].tokens) == 12


def test_a_wish_that_is_mistyped_is_not_passed_over(monkeypatch):
    """Who measures torch must not measure C."""
    monkeypatch.setenv("MINIGPT_ENGINE", "troch")
    with pytest.raises(ValueError, match="MINIGPT_ENGINE=troch is not a choice"):
        compiler._attempt.__wrapped__()


def test_the_library_is_compiled_once(tmp_path, monkeypatch):
    """A second process finds it; another source, compiler or machine is another library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-O0"))
    compiler._attempt.__wrapped__()
    [made] = (tmp_path / "minigpt").iterdir()
    before = made.stat().st_ino
    compiler._attempt.__wrapped__()
    assert made.stat().st_ino == before
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-DOTHER"))
    compiler._attempt.__wrapped__()
    assert len(list((tmp_path / "minigpt").iterdir())) == 2


def test_old_libraries_are_removed(tmp_path, monkeypatch):
    """Each version of the source leaves one; those in use stay, and so does what is not ours."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-O0"))
    compiler._attempt.__wrapped__()
    [used] = (folder := tmp_path / "minigpt").iterdir()
    for age in range(10):
        (other := folder / f"step-{age}.so").touch()
        os.utime(other, (10**9 - age, 10**9 - age))
    (folder / "notes.txt").touch()
    os.utime(used, (0, 0))
    compiler._attempt.__wrapped__()  # loaded: it counts as new
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-DOTHER"))
    compiler._attempt.__wrapped__()
    left = {path.name for path in folder.iterdir()}
    assert len(left) == compiler.KEPT + 1 and {used.name, "notes.txt", "step-0.so"} <= left and "step-9.so" not in left


def test_a_library_that_others_can_change_is_not_loaded(tmp_path, monkeypatch):
    """What lies in the cache folder is executed."""
    (tmp_path / "minigpt").mkdir()
    (tmp_path / "minigpt").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "written to by others" in str(compiler._attempt.__wrapped__())


def test_a_compiler_that_fails_is_asked_once(monkeypatch):
    """Each engine would wait for it anew, and a round of reinforcement learning makes many."""
    asked_for = []
    monkeypatch.setattr(compiler, "found", lambda: asked_for.append(1) or "false")
    compiler._attempt.cache_clear()
    try:
        assert all(Engine(float_gpt()).not_compiled for _ in range(3)) and len(asked_for) == 1
    finally:
        compiler._attempt.cache_clear()
