"""The machine code of every launch, compiled for two GPUs that are not here: no spills, the right instructions."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kernels import machine_code, manifest
from kernels.machine_code import Report, Row, amiss

pytest.importorskip("triton")
KERNELS = Path(machine_code.__file__).parent
JITTED = {"triton.jit", "gluon.jit"}
FINE = Report(
    registers=128, stack=0, spills=0, shared=1024, wgmma=0, mma=0, beside=0, wide_loads=4, wide_stores=2,
    narrow_loads=1, narrow_stores=0, instructions=500, seconds=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Everything, compiled once, on all cores, in processes that compile: this one may interpret."""
    return list(machine_code.all_rows())


@pytest.mark.parametrize("entry", manifest.ENTRIES)
def test_every_launch_is_as_wanted(rows, entry):
    """Each of these defects is invisible to a test of the results, and costs a factor."""
    own = [row for row in rows if row.entry == entry]
    only = manifest.ENTRIES[entry].only
    assert {row.arch for row in own} == ({only} if only else {80, 90})
    wrong = {f"{row.kernel} on {row.arch}": row.amiss for row in own if row.amiss}
    assert not wrong


def test_matrix_kernels_are_recognised(rows):
    """The rules for products would pass silently over kernels that are not known to multiply."""
    multiplying = {row.kernel.split(".")[0] for row in rows if row.multiplies}
    assert multiplying == {
        "attention_forward", "attention_backward", "attention_hopper_forward", "attention_hopper_backward",
        "decode_attention", "newton_schulz", "quantized_linear",
    }  # fmt: skip
    assert all(row.report.wgmma for row in rows if row.kernel.startswith("attention_forward") and row.arch == 90
               and "float32" not in row.entry)  # fmt: skip


@pytest.mark.parametrize(
    "change, kernel, multiplies, message",
    [
        ({"stack": 8}, "a.b", False, "spill: 8 bytes"),
        ({"spills": 1}, "a.b", False, "1 instructions"),
        ({"shared": 300_000}, "a.b", False, "300000 bytes of shared memory"),
        ({}, "a.b", True, "beside the matrix units"),
        ({"mma": 4, "wgmma": 4}, "a.b", True, "before Hopper's"),
        ({"beside": 66}, "attention_hopper_forward._forward_kernel", False, "66 exponentials run beside"),
        ({"wide_loads": 0}, "a.b", False, "none of 1 loads"),
        ({"wide_stores": 0, "narrow_stores": 3}, "a.b", False, "none of 3 stores"),
    ],
)
def test_each_defect_is_called_by_its_name(change, kernel, multiplies, message):
    """The rules, one by one."""
    assert amiss("a.b", 90, False, FINE, stack=0, narrow="") == []
    found = amiss(kernel, 90, multiplies, FINE._replace(**change), stack=0, narrow="")
    assert any(message in line for line in found), found


def test_a_reason_allows_what_it_names_and_nothing_else():
    """An allowance for spilled registers must not hide an old instruction."""
    spilling = FINE._replace(stack=8, spills=2, mma=1, wgmma=1)
    old = "1 matrix instructions of the kind before Hopper's"
    assert amiss("a.b", 90, True, spilling, stack=8, narrow="") == [old]
    assert amiss("a.b", 90, True, spilling, stack=4, narrow="") == ["registers spill: 8 bytes, 2 instructions", old]
    narrow = FINE._replace(wide_loads=0, wide_stores=0, narrow_stores=9)
    assert amiss("a.b", 90, False, narrow, stack=0, narrow="why") == []


def test_small_tiles_and_older_gpus_may_use_older_instructions():
    """Only there: elsewhere on Hopper they would run at half speed. Small numbers need not be read 16 bytes wide."""
    old = FINE._replace(mma=1)
    assert amiss("quantized_linear._few_rows_kernel", 90, True, old, stack=0, narrow="") == []
    assert amiss("a.b", 80, True, old, stack=0, narrow="") == []
    handful = FINE._replace(wide_loads=0, wide_stores=0, narrow_stores=2)
    assert amiss("decode_attention._merge_kernel", 90, False, handful, stack=0, narrow="") == []
    shared = FINE._replace(shared=200 * 1024)
    assert amiss("a.b", 90, False, shared, stack=0, narrow="") == []
    assert "shared memory" in amiss("a.b", 80, False, shared, stack=0, narrow="")[0]


SASS = """
    LDG.E.128 R4, [R2.64] ;
    LDG.E.64.CONSTANT R4, [R2.64] ;
    LDG.E R4, [R2.64] ;
    LDGSTS.E.BYPASS.128 [R1], [R2.64] ;
    UTMALDG.2D [UR8], [UR4] ;
    STG.E.128 [R2.64], R4 ;
    STG.E.U16 [R2.64], R4 ;
    UTMASTG.2D [UR8], [UR4] ;
    LDL R1, [R1] ;
    STL [R1], R1 ;
    STL.64 [R1], R1 ;
    HGMMA.64x64x16.F32 R24, gdesc[UR4], R24 ;
    HMMA.16816.F32 R4, R8, R2, R4 ;
    MUFU.EX2 R7, R7 ;
    WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
    MUFU.EX2 R8, R8 ;
    MUFU.EX2 R9, R9 ;
    WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
    MUFU.EX2 R7, R7 ;
    IMMA.16832.S8.S8 R4, R8, R2, R4 ;
"""


def test_instructions_are_counted_by_hand(monkeypatch):
    """Each rule stands on these counts: a pattern that matches nothing would find nothing amiss, forever."""
    usage = "Function f:\n REG:168 STACK:16 SHARED:0 LOCAL:0"
    binary = SimpleNamespace(asm={"cubin": b""}, metadata=SimpleNamespace(shared=4096))
    monkeypatch.setattr(machine_code, "compiled", lambda *launch: binary)
    monkeypatch.setattr(machine_code, "_tool", lambda name, *rest: SASS if name == "nvdisasm" else usage)
    assert machine_code.read(None, 90)._replace(seconds=0.0) == Report(
        registers=168, stack=16, spills=3, shared=4096, wgmma=1, mma=2, beside=2, wide_loads=3, wide_stores=2,
        narrow_loads=2, narrow_stores=1, instructions=20, seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("found, status", [([], 0), (["registers spill"], 1)])
def test_the_exit_status_says_whether_something_is_amiss(monkeypatch, capsys, found, status):
    """What continuous integration reads."""
    monkeypatch.setattr("sys.argv", ["machine_code"])
    rows = [Row("entry", "a.b", 90, False, FINE, found), Row("entry", "a.c", 90, False, FINE, [])]
    monkeypatch.setattr(machine_code, "all_rows", lambda *how: iter(rows))
    assert machine_code.main() == status
    printed = capsys.readouterr().out
    assert ("amiss: registers spill" in printed) == bool(found) == ("1 launches are amiss" in printed)


def jitted_functions() -> dict[str, set[str]]:
    """file.function of everything under @triton.jit or @gluon.jit -> the names it uses."""
    found = {}
    for path in sorted((KERNELS / "gpu").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and JITTED & {ast.unparse(d) for d in node.decorator_list}:
                used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
                found[f"{path.stem}.{node.name}"] = used
    return found


def test_no_kernel_is_missing_from_the_manifest():
    """Every function under @triton.jit or @gluon.jit is launched by an entry or used by one that is."""
    launched = {
        f"{launch.kernel.fn.__module__.rpartition('.')[2]}.{launch.kernel.fn.__name__}"
        for entry in manifest.ENTRIES
        for launch in manifest.launches_of(entry, 90)
    }
    functions = jitted_functions()
    assert launched <= set(functions)
    reached, names = set(launched), set()
    while True:
        names = set().union(*(functions[function] for function in reached))
        further = {function for function in functions if function.split(".")[1] in names} - reached
        if not further:
            break
        reached |= further
    assert set(functions) == reached


def test_only_the_door_launches():
    """A launch beside `launch` would be in no manifest, and would not run in the interpreter."""
    for path in (KERNELS / "gpu").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)
            assert not called, f"{path.name}: {ast.unparse(node)[:60]}"


def test_a_compiled_launch_knows_what_divides():
    """As the just-in-time compiler does: 1 is a constant, multiples of 16 are known as such, None is no argument."""
    assert machine_code._specialised(torch.empty(4, dtype=torch.bfloat16)) == ("*bf16", True)
    assert machine_code._specialised(torch.empty(4, dtype=torch.bfloat16)[1:]) == ("*bf16", False)
    assert machine_code._specialised(torch.empty(9, dtype=torch.bfloat16)[8:]) == ("*bf16", True)
    assert machine_code._specialised(48) == ("i32", True)
    assert machine_code._specialised(-(2**31)) == ("i32", True) and machine_code._specialised(7) == ("i32", False)
    assert machine_code._specialised(True) == ("u1", False)
    assert machine_code._specialised(2**31) == ("i64", True)
    assert machine_code._specialised(0.5) == ("fp32", False)
    tiles = SimpleNamespace(base=torch.empty(4, dtype=torch.bfloat16), block_shape=(1, 64), layout=None)
    assert machine_code._specialised(tiles) == ("tensordesc<bf16[1, 64],None>", False)


def test_an_unknown_word_names_the_entries(monkeypatch, capsys):
    """Exit status 2, and what there is."""
    monkeypatch.setattr("sys.argv", ["machine_code", "convolution"])
    assert machine_code.main() == 2
    assert "attention 64" in capsys.readouterr().err
