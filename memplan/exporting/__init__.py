"""A predicted timeline in the formats of other people's viewers: PyTorch's memory_viz, Perfetto and Chrome's tracing.

`placed` gives every tensor of a timeline its address, its block and the segment it lies in; `snapshot` and `perfetto`
write that down. Torch-free; no file is opened here.
"""
