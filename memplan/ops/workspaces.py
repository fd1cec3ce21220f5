"""The workspaces of cuBLAS and cuBLASLt. PyTorch takes them from its caching allocator, so they count as allocated.

Sources: aten/src/ATen/cuda/CublasHandlePool.cpp (getChosenWorkspaceSize, getCUDABlasLtWorkspace,
setWorkspaceForHandle), aten/src/ATen/cuda/CUDABlas.cpp (gemm_and_bias), aten/src/ATen/native/cuda/Blas.cpp
(addmm_out_cuda_impl). Without CUBLAS_WORKSPACE_CONFIG and CUBLASLT_WORKSPACE_SIZE, and on one stream.
"""

from __future__ import annotations

from memplan.ops.backend import Backend
from memplan.ops.layout import Shape
from memplan.ops.trace import Trace
from memplan.units import KIB, MIB

_LT_BYTES = 1 * MIB


def cublas_bytes(backend: Backend) -> int:
    """The workspace of one cuBLAS handle: 32 MiB on Hopper and on what each release knows beyond it, else 8.125 MiB."""
    major = backend.compute_capability[0]
    if backend.torch < (2, 12):
        large = backend.compute_capability == (9, 0)
    elif backend.torch < (2, 14):
        large = major in (9, 10, 12)
    else:
        large = major in (9, 10, 11, 12)
    return 32 * MIB if large else 4096 * 2 * KIB + 128 * KIB


def take_workspaces(trace: Trace, fused_bias: bool = False) -> None:
    """What a matrix product finds or takes. Every thread has a handle with a workspace of its own: the caller's, and
    autograd's, which runs the backward pass and what is recomputed in it."""
    backend = trace.backend
    if not backend.cuda:
        return
    thread = "autograd's" if trace.phase == "backward" else "caller's"
    separate = None
    if fused_bias and backend.torch < (2, 9):  # cuBLASLt's own, for each call
        separate = trace.allocate((_LT_BYTES,), "uint8", "cuBLASLt workspace")
    trace.need_workspace(f"cuBLAS workspace ({thread} thread)", cublas_bytes(backend))
    if fused_bias and (2, 9) <= backend.torch < (2, 12):  # kept; newer releases use the one above
        trace.need_workspace(f"cuBLASLt workspace ({thread} thread)", _LT_BYTES)
    trace.free(separate)


def fuses_bias(backend: Backend, rows: int, weight: Shape) -> bool:
    """Whether `rows` times weight [out, in] plus a bias goes to cuBLASLt (isInputCompliesAddmmCudaLt). PyTorch 2.10
    alone asks for more than one row."""
    return weight[0] > 1 and weight[1] > 1 and (rows > 1 or backend.torch != (2, 10))
