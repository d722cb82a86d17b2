"""GPUs outside data centres give a program 99 KB of shared memory; what asks for more does not start there."""

import pytest

from kernels import machine_code, manifest

pytest.importorskip("triton")


def test_the_widest_heads_fit_the_smallest_gpu():
    """Everything grows with the width of a head, float32 most of all. `machine_code --arch 89` compiles the rest."""
    rows = list(machine_code.all_rows("attention 256", (89,)))
    assert {row.entry for row in rows} == {entry for entry in manifest.ENTRIES if "attention 256" in entry}
    assert any("float32" in row.entry for row in rows)
    assert {f"{row.kernel}, {row.entry}": row.amiss for row in rows if row.amiss} == {}


def test_more_than_99_kb_is_amiss_there():
    """What an A100 has room for."""
    nothing = dict.fromkeys(machine_code.Report._fields, 0)
    report = machine_code.Report(**nothing | {"shared": 100 * 1024, "wide_loads": 4, "wide_stores": 2})
    assert machine_code.amiss("a.b", 80, False, report, stack=0, narrow="") == []
    assert machine_code.amiss("a.b", 89, False, report, stack=0, narrow="") == [
        "102400 bytes of shared memory, of 101376"
    ]
