"""Train a DCGAN on aligned faces, sample from it, and export its weights. Needs torch."""
