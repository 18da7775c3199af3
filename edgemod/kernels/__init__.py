"""Numba kernels over byte and offset buffers, and the tables they read. Nothing else."""
