"""The experiments of the DCGAN paper and of the GANs around it: python -m dcgan explore NAME."""
