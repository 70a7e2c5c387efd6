// Arguments of the bias_act kernels, and their launchers.
#pragma once

#include "common.h"

namespace eg3d {

struct BiasAct {
  long long count;   // elements
  long long stride;  // element i has bias (i / stride) % channels
  long long channels;
  int act;             // index of the activation; see with_activation
  double alpha, gain;  // the launchers pass these three to the kernels in the type of the arithmetic
  double clamp;        // negative: no clamp
  bool aligned;        // every tensor starts on a 16-byte boundary; set by the launchers
};

// All tensors have `count` elements in the same memory order; `b` has `channels` elements. Null: the tensor is absent.
void launch_bias_act(ElementType, BiasAct, const void* x, const void* b, void* y, void* stream);
void launch_bias_act_grad(ElementType, BiasAct, const void* dy, const void* x, const void* b, const void* y, void* dx,
                          void* stream);
void launch_bias_act_grad2(ElementType, BiasAct, const void* v, const void* dy, const void* x, const void* b, void* out,
                           void* stream);

}  // namespace eg3d
