"""The machine code of all kernels: how it is read, the rule it is held to, the budgets themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fastgen.bench.static import budget, command, jobs, nvcc
from fastgen.bench.static.budget import Budget, Kernel
from fastgen.bench.static.jobs import Job
from fastgen.bench.static.machine_code import MachineCode, of_amdgcn, of_listing

VERSIONS, _ = jobs.toolchain()
BUDGETS = budget.read(budget.FILE)
TRITON = BUDGETS["triton"]

# All of them for one target, but of float64 a few, and a few for the others; the command compiles all of them for all.
FLOAT64 = ("gaussian_rsample_kl", "radial, of each row")
BEYOND = {("masked_linear", "bfloat16"), ("coupling of vectors", "float32"), ("planar", "float32")}
JOBS = [
    job
    for job in jobs.all_jobs(["triton"])
    if (job.target == "sm_90" and (job.dtype != "float64" or job.name in FLOAT64)) or (job.name, job.dtype) in BEYOND
]

MATRIX = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "v_mfma"}

SASS = """
Resource usage:
 Common:
  GLOBAL:0
 Function first:
  REG:30 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:968 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function second:
  REG:255 STACK:16 SHARED:0 LOCAL:0 CONSTANT[0]:968 TEXTURE:0 SURFACE:0 SAMPLER:0

\tcode for sm_90
\t\tFunction : first
        /*0000*/              @!P0 LDG.E.LTC128B.128 R4, desc[UR4][R2.64] ;
        /*0010*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0020*/                   LDGSTS.E.BYPASS.128 [R1], desc[UR4][R2.64], P0 ;
        /*0030*/                   LDGDEPBAR ;
        /*0040*/                   STG.E.U16 desc[UR4][R2.64], R7 ;
        /*0050*/                   HGMMA.64x256x16.F32.BF16 R24, gdesc[UR8], R24 ;
\t\tFunction : second
        /*0000*/                   STL [R1+0x4], R2 ;
        /*0010*/               @P0 LDL.LU R2, [R1+0x4] ;
        /*0020*/                   ST.E.64 desc[UR4][R2.64], R8 ;
"""

AMDGCN = """
\tglobal_load_dwordx4 v[2:5], v[2:3], off
\tbuffer_load_ushort v1, v2, s[0:3], 0 offen
\tglobal_load_lds_dword v[2:3], off
\tglobal_store_dwordx2 v[0:1], v[2:3], off
\tv_mfma_f32_32x32x8_bf16 v[0:15], v[16:17], v[18:19], v[0:15]
amdhsa.kernels:
  - .agpr_count:     8
    .group_segment_fixed_size: 512
    .private_segment_fixed_size: 4
    .sgpr_count:     32
    .sgpr_spill_count: 1
    .vgpr_count:     124
    .vgpr_spill_count: 2
"""


def test_nvidia_machine_code_is_read() -> None:
    assert of_listing(SASS) == {
        "first": MachineCode(30, 0, 0, 1024, {4: 1, 16: 2}, {2: 1}, {"HGMMA": 1}),
        "second": MachineCode(255, 2, 16, 0, {}, {8: 1}, {}),
    }


def test_amd_assembly_is_read() -> None:
    assert of_amdgcn(AMDGCN) == MachineCode(124, 2, 4, 512, {2: 1, 4: 1, 16: 1}, {8: 1}, {"v_mfma": 1})


CODE = MachineCode(128, 0, 0, 4096, {4: 2, 16: 8}, {16: 4}, {"HGMMA": 8})
KERNEL = Kernel("masked_linear: forward", "sm_90", "bfloat16", CODE)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"spills": 1}, "at most 0 spills, found 1"),
        ({"registers": 129}, "room for 16 warps of 128 registers, found 15 of 129"),
        ({"shared": 4097}, "at most 4096 bytes of shared memory, found 4097"),
        ({"shared": 228 * 1024}, "at most the 232448 bytes of shared memory of the device, found 233472"),
        ({"loads": {4: 6, 16: 7}}, "loads"),
        ({"stores": {4: 16}}, "stores"),
        ({"matrix": {"HMMA": 32}}, "matrix instructions HGMMA, found HMMA"),
        ({"matrix": {}}, "matrix instructions HGMMA, found none"),
    ],
)
def test_what_is_worse_is_told(changed: dict, expected: str) -> None:
    lines = budget.faults(replace(KERNEL, code=replace(CODE, **changed)), CODE)
    assert any(line.startswith("masked_linear: forward, bfloat16, sm_90: expected ") and expected in line for line in lines)


@pytest.mark.parametrize(
    "changed", [{}, {"registers": 121}, {"shared": 0}, {"loads": {16: 8}}, {"loads": {4: 3, 16: 8}}, {"matrix": {"HGMMA": 4}}]
)
def test_what_is_not_worse_passes(changed: dict) -> None:
    assert not budget.faults(replace(KERNEL, code=replace(CODE, **changed)), CODE)


def test_a_kernel_needs_a_budget_and_a_budget_a_kernel() -> None:
    other = replace(KERNEL, name="masked_linear: backward")
    assert budget.compare([KERNEL], [other]) == [
        "masked_linear: forward, bfloat16, sm_90: expected a budget, found none",
        "masked_linear: backward, bfloat16, sm_90: expected a kernel, as there is a budget, found none",
    ]


@pytest.mark.parametrize(
    ("target", "registers", "warps"),
    [("sm_90", 32, 64), ("sm_90", 33, 51), ("sm_90", 255, 8), ("gfx942", 64, 8), ("gfx942", 65, 7), ("gfx942", 512, 1)],
)
def test_warps_that_registers_leave_room_for(target: str, registers: int, warps: int) -> None:
    assert budget.resident_warps(target, registers) == warps


def test_budgets_are_written_as_read(tmp_path: Path) -> None:
    budget.write(tmp_path / "budgets.json", BUDGETS)
    assert (tmp_path / "budgets.json").read_text() == budget.FILE.read_text()


@pytest.mark.parametrize("content", ["", "[]", '{"triton": {}}', '{"triton": {"version": "3", "kernels": [{"name": "x"}]}}'])
def test_a_file_that_holds_no_budgets_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ValueError, match=r"other\.json: expected budgets by compiler"):
        budget.read(tmp_path / "other.json")


# The budgets, which the compiled kernels are held to below, are themselves as good as they have to be.


def test_hardly_anything_is_spilled() -> None:
    """ptxas saves a handful of registers at the beginning and reads them at the end, to make room for one block more."""
    spilled = [kernel for group in BUDGETS.values() for kernel in group.kernels if kernel.code.spills]
    assert not [str(kernel) for kernel in spilled if kernel.code.stack > 64]


def test_masked_layers_use_the_matrix_units() -> None:
    products = [k for k in TRITON.kernels if k.call == "masked_linear" and k.dtype in ("bfloat16", "tf32")]
    products = [kernel for kernel in products if "sum_rows" not in kernel.name]
    assert {kernel.target for kernel in products} == MATRIX.keys()
    assert not [str(kernel) for kernel in products if MATRIX[kernel.target] not in kernel.code.matrix]


ROW_CALLS = ("affine_autoregressive", "gaussian_log_prob", "coupling of a checkerboard", "coupling of vectors, additive")


def test_kernels_on_rows_load_wide() -> None:
    """All but a few bytes come in loads of 16 or more; the rest is one value per row or per channel."""
    kernels = [k for k in TRITON.kernels if k.call in ROW_CALLS and k.dtype != "float64" and k.target != "gfx942"]
    assert {kernel.call for kernel in kernels} == {*ROW_CALLS}
    for kernel in kernels:
        loads = kernel.code.loads
        wide = sum(width * n for width, n in loads.items() if width >= 16)
        assert wide > 0.8 * sum(width * n for width, n in loads.items()), kernel


@pytest.fixture(scope="module")
def compiler() -> Iterator[None]:
    with jobs.fresh_cache():
        yield


@pytest.mark.skipif("triton" not in VERSIONS, reason="needs Triton and cuobjdump")
@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.name}-{job.dtype}-{job.target}")
def test_kernels_are_within_their_budgets(job: Job, compiler: None) -> None:
    if VERSIONS["triton"] != TRITON.version:
        pytest.skip(f"budgets are of Triton {TRITON.version}, not {VERSIONS['triton']}")
    assert not budget.compare(jobs.compiled(job), filter(job.makes, TRITON.kernels))


# The command.

CHOICE = ["gaussian_log_prob", "--target", "sm_90", "--dtype", "bfloat16", "--processes", "1"]
MADE = [kernel for kernel in TRITON.kernels if (kernel.call, kernel.target, kernel.dtype) == (CHOICE[0], CHOICE[2], CHOICE[4])]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels as their budgets say, compiled by nobody."""
    monkeypatch.setattr(command, "compile_all", lambda chosen, processes: [(job, MADE) for job in chosen])
    monkeypatch.setattr(command, "toolchain", lambda: ({"triton": TRITON.version}, ["nvcc: expected, found none"]))


def test_update_accepts_and_a_change_is_found(made: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "budgets.json"
    options = [*CHOICE, "--budgets", str(file)]
    assert command.main([*options, "--update"]) == 0
    assert budget.read(file)["triton"] == Budget(TRITON.version, tuple(sorted(MADE, key=lambda k: k.key)))
    assert command.main(options) == 0
    tighter = [replace(kernel, code=replace(kernel.code, shared=kernel.code.shared - 1)) for kernel in MADE]
    budget.write(file, {"triton": Budget(TRITON.version, tuple(tighter))})
    assert command.main(options) == 1
    out = capsys.readouterr().out
    assert "nvcc: expected, found none" in out
    assert out.count("bytes of shared memory, found") == len(MADE) == 2


def test_an_update_of_a_part_leaves_the_others(made: None, tmp_path: Path) -> None:
    file = tmp_path / "budgets.json"
    budget.write(file, BUDGETS)
    assert command.main([*CHOICE, "--budgets", str(file), "--update"]) == 0
    assert file.read_text() == budget.FILE.read_text()


def test_another_compiler_is_not_compared(made: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "budgets.json"
    budget.write(file, {"triton": Budget("2.0", (KERNEL,))})
    assert command.main([*CHOICE, "--budgets", str(file)]) == 0
    assert f"triton {TRITON.version}: expected budgets of this version in budgets.json, found 2.0" in capsys.readouterr().out
    # Half of the budgets by one compiler and half by another would be comparable with neither.
    assert command.main([*CHOICE, "--budgets", str(file), "--update"]) == 1
    assert budget.read(file)["triton"].kernels == (KERNEL,)


def test_what_does_not_compile_fails(made: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "compile_all", lambda chosen, processes: [(job, "it: expected to compile") for job in chosen])
    file = tmp_path / "budgets.json"
    assert command.main([*CHOICE, "--budgets", str(file), "--update"]) == 1
    assert not file.exists()


def test_without_rich_there_is_a_table_too(
    made: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    command.main(CHOICE)
    out = capsys.readouterr().out
    assert all(str(kernel.code.registers) in out and kernel.name in out for kernel in MADE)


def test_json(made: None, tmp_path: Path) -> None:
    file = tmp_path / "new" / "static.json"
    command.main([*CHOICE, "--json", str(file)])
    content = json.loads(file.read_text())
    assert content["compilers"] == {"triton": TRITON.version} and len(content["kernels"]) == len(MADE)


@pytest.mark.parametrize("missing", ["sources", "version"])
def test_a_toolchain_without_nvcc_says_so(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvcc, missing, lambda: None)
    versions, lines = jobs.toolchain()
    assert "nvcc" not in versions and len(lines) == 1


def test_an_unknown_name_is_refused(made: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["no_such_kernel"])
    assert "NAME: expected the beginning of one of affine_autoregressive" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif("triton" not in VERSIONS, reason="needs Triton and cuobjdump")
def test_processes_compile_what_was_chosen() -> None:
    (job,) = (job for job in JOBS if (job.name, job.dtype, job.target) == ("gaussian_log_prob", "bfloat16", "sm_90"))
    ((done, found),) = jobs.compile_all([job], 1)
    assert done == job and [kernel.name for kernel in found] == ["gaussian_log_prob: forward", "gaussian_log_prob: backward"]


def test_every_call_has_budgets_for_every_target() -> None:
    # The source of the device's properties has no kernels.
    expected = [job for job in jobs.all_jobs(list(BUDGETS)) if job.name != "device"]
    kernels = [kernel for made in BUDGETS.values() for kernel in made.kernels]
    assert [job for job in expected if not any(job.makes(kernel) for kernel in kernels)] == []
    assert {job.target for job in expected if job.compiler == "triton"} == set(budget.SHARED_MEMORY)
