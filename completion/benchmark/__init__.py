"""Benchmark of completion methods, with and without the DCGAN, on the same faces and holes."""
