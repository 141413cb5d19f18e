"""The kernels for CPUs: C++ with a plain C interface, built when the package is installed."""
