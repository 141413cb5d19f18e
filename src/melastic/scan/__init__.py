"""The selective scan of Mamba: the loop that defines it, and the kernels that are fast."""
