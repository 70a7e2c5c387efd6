// Replaces the CUDA toolkit's file of this name, because this folder is first in the include path.
#include "emulator.h"
