"""Times of blocks and kernels on one device: `ifspace bench`, `python -m ifspace.bench.kernels`.

`blocks` and `kernels` list what is measured: cases and candidates (`case`). These are checked
(`gate`), timed in turn (`run`, `clock`) and kept as rows (`rows`).
"""
