"""Benchmark of completion methods, with the DCGAN and without, on the same faces and holes."""
