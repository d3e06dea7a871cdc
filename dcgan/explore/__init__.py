"""Experiments from the DCGAN paper and other papers on GANs: python -m dcgan explore NAME."""
