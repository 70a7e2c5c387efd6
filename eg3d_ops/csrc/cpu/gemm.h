// Small matrix products: rows of A (given by pointers) times a packed matrix B, with a fused epilogue.
#pragma once

#include "vec.h"

namespace eg3d {
namespace EG3D_ISA {

// Computes sum_k A(row, k) B[k, columns] for MR rows and NV vectors of columns, all in registers.
template <int MR, int NV, class Epilogue>
EG3D_INLINE void gemm_block(const float* const* a, int64_t a_step, int depth, const float* b, int64_t b_step, int row,
                            int rows, int column, const Epilogue& epilogue) {
  vf sum[MR][NV] = {};
  const float* row_a[MR];
  for (int i = 0; i < MR; ++i) row_a[i] = a[row + i < rows ? row + i : rows - 1];
  b += column;
  int64_t at = 0;
  for (int k = 0; k < depth; ++k, at += a_step, b += b_step) {
    vf bv[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) bv[j] = load(b + j * VL);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) sum[i][j] += row_a[i][at] * bv[j];
  }
  for (int i = 0; i < MR; ++i)
    if (row + i < rows) epilogue(row + i, column, sum[i]);
}

// Blocks have 6 x 4 vectors with AVX-512 (24 accumulators in 32 registers), otherwise 6 x 2 (16 registers).
#if defined(__AVX512F__)
constexpr int kBlockVectors = 4;
#else
constexpr int kBlockVectors = 2;
#endif

// Computes C = A B; `columns` must be a multiple of 16 floats. `epilogue(row, column, const vf (&sum)[NV])` is called
// for every row once per group of columns.
template <class Epilogue>
EG3D_INLINE void gemm(int rows, int columns, int depth, const float* const* a, int64_t a_step, const float* b,
                      int64_t b_step, const Epilogue& epilogue) {
  int column = 0;
  for (; column + kBlockVectors * VL <= columns; column += kBlockVectors * VL)
    for (int row = 0; row < rows; row += 6)
      gemm_block<6, kBlockVectors>(a, a_step, depth, b, b_step, row, rows, column, epilogue);
#if defined(__AVX512F__)
  for (; column + 2 * VL <= columns; column += 2 * VL)
    for (int row = 0; row < rows; row += 8) gemm_block<8, 2>(a, a_step, depth, b, b_step, row, rows, column, epilogue);
  for (; column < columns; column += VL)
    for (int row = 0; row < rows; row += 8) gemm_block<8, 1>(a, a_step, depth, b, b_step, row, rows, column, epilogue);
#endif
}

}  // namespace EG3D_ISA
}  // namespace eg3d
