from fastnorm.backends._kernels_base import *  # the same source, compiled for another instruction set
