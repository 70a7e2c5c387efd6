"""Tests of what `make check-cuda` reads from compilers. Running it needs nvcc, which these tests do not."""

from tools.check_cuda import float64_instructions

PTX = """
.visible .entry floats(
  .param .f64 floats_param_0
)
{
  ld.param.f64  %fd1, [floats_param_0];
  fma.rn.f32    %f1, %f2, %f3, %f4;
  cvt.f32.f16   %f5, %rs1;
}
.visible .entry halves(
  .param .u64 halves_param_0
)
{
  cvt.f64.f32   %fd1, %f1;
  @%p1 mul.f64  %fd2, %fd1, %fd1;
  cvt.rn.f32.f64 %f2, %fd2;
}
"""


def test_arithmetic_in_float64_is_counted_and_parameters_are_not() -> None:
    assert float64_instructions(PTX) == {"floats": 0, "halves": 3}
