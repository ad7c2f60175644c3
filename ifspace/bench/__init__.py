"""Times of blocks and of kernels on one device: `ifspace bench`, `python -m ifspace.bench.kernels`.

A case and its candidates (`case`), checked (`gate`), timed in turn (`run`, `clock`) and kept as rows
(`rows`). `blocks` and `kernels` list what is measured.
"""
