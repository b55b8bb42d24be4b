"""Triton kernels, one file per operation: kernel, then launcher. `fastgen.ops` calls them with arguments already checked."""
