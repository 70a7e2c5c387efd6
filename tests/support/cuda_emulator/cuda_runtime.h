// Found before the toolkit's file of this name.
#include "emulator.h"
