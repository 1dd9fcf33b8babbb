"""The norms of arrays on a CUDA device: the CPU's plans, rules and checks of arguments, and the device's kernels."""
