"""Messages that PyTorch has really written, in messages/: where each is from, by which release where that is said
there, and what it says. Sizes are spelled as they are printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "messages"


class Real(NamedTuple):
    """One file: an address, the release ("" where it is not said), and the fields of the message."""

    source: str
    release: str
    fields: dict[str, Any]


def _caching(asked: str, capacity: str, free: str | None, allocated: str, **others: Any) -> dict[str, Any]:
    fields = {"kind": "caching", "backend": "CUDA", "gpu": 0}
    sizes = {"asked": asked, "capacity": capacity, "free": free, "allocated": allocated}
    return {**fields, **{name: size for name, size in sizes.items() if size is not None}, **others}


EXPANDABLE = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
SPLIT = "max_split_size_mb in PYTORCH_CUDA_ALLOC_CONF"
WATERMARK = "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0"
EMPTY = "empty_cache()"

REAL = {
    "cached_small": Real(
        "https://github.com/pytorch/pytorch/issues/16417", "1.0",
        _caching("12.50 MiB", "10.92 GiB", "9.28 GiB", "8.57 MiB", unallocated="4.68 MiB", early=True),
    ),
    "cached_kib": Real(
        "https://github.com/cherubicXN/afm_cvpr2019/issues/8", "",
        _caching("25.00 MiB", "3.94 GiB", "21.56 MiB", "3.14 GiB", unallocated="634.00 KiB", early=True),
    ),
    "cached": Real(
        "https://github.com/ryujaehun/pytorch-gpu-benchmark/issues/1", "",
        _caching("32.00 MiB", "7.79 GiB", "21.00 MiB", "6.64 GiB", unallocated="150.86 MiB", early=True),
    ),
    "cached_progress": Real(
        "https://github.com/pytorch/pytorch/issues/31252", "",
        _caching("1.72 GiB", "10.76 GiB", "356.00 MiB", "4.01 GiB", unallocated="5.54 GiB", early=True),
    ),
    "reserved": Real(
        "https://github.com/pytorch/pytorch/issues/59778", "",
        _caching("2.26 GiB", "6.00 GiB", "3.03 GiB", "781.59 MiB", reserved="1.24 GiB"),
    ),
    "reserved_quoted": Real(
        "https://github.com/OPIXray-author/OPIXray/issues/5", "",
        _caching("264.00 MiB", "2.00 GiB", "145.93 MiB", "788.51 MiB", reserved="1.02 GiB"),
    ),
    "reserved_no_head": Real(
        "https://github.com/ShannonAI/Self_Explaining_Structures_Improve_NLP_Models/issues/6", "",
        _caching("20.00 MiB", "1.96 GiB", "2.88 MiB", "1.24 GiB", reserved="1.25 GiB"),
    ),
    "split_size": Real(
        "https://github.com/karpathy/nanoGPT/issues/61", "",
        _caching("786.00 MiB", "15.78 GiB", "620.69 MiB", "14.28 GiB", reserved="14.32 GiB", suggestion=SPLIT),
    ),
    "split_size_error": Real(
        "https://github.com/karpathy/nanoGPT/issues/88", "",
        _caching("394.00 MiB", "15.78 GiB", "8.68 GiB", "5.17 GiB", reserved="5.25 GiB", suggestion=SPLIT),
    ),
    "split_size_zero_free": Real(
        "https://github.com/CompVis/stable-diffusion/issues/702", "",
        _caching("192.00 MiB", "4.00 GiB", "0 bytes", "3.08 GiB", reserved="3.47 GiB", suggestion=SPLIT),
    ),
    "split_size_spilled": Real(
        "https://github.com/YingqianWang/iPASSR/issues/9", "",
        _caching("10.73 GiB", "8.00 GiB", "0 bytes", "17.20 GiB", reserved="19.15 GiB", suggestion=SPLIT),
    ),
    "split_size_wrapped": Real(
        "a public repository's notes on huggingface/transformers, which name no address", "",
        _caching("512.00 MiB", "11.17 GiB", "142.25 MiB", "10.55 GiB", reserved="10.58 GiB", suggestion=SPLIT),
    ),
    "loading": Real(
        "a public repository's log of training Dolly, which names no address", "",
        _caching("984.00 MiB", "47.50 GiB", "68.88 MiB", "22.15 GiB", reserved="22.16 GiB", suggestion=SPLIT),
    ),
    "capacty": Real(
        "https://github.com/carolchenyx/MGFN./issues/35", "",
        _caching("1.70 GiB", "6.00 GiB", "0 bytes", "2.93 GiB", unallocated="2.30 GiB", suggestion=SPLIT),
    ),
    "capacty_process": Real(
        "https://github.com/kerrj/lerf/issues/73", "",
        _caching(
            "3.00 GiB", "23.65 GiB", "1.66 GiB", "12.09 GiB", this_process="20.81 GiB", unallocated="4.84 GiB",
            suggestion=SPLIT,
        ),
    ),
    "capacty_fraction": Real(
        "https://github.com/pytorch/pytorch/issues/111363", "main of 2023-10-16",
        _caching(
            "64.00 MiB", "79.15 GiB", "38.09 GiB", "39.10 GiB", this_process="41.06 GiB", unallocated="427.46 MiB",
            suggestion=SPLIT,
        ),
    ),
    "capacty_kib": Real(
        "https://github.com/vllm-project/vllm/issues/2140", "",
        _caching(
            "3.50 GiB", "23.69 GiB", "3.09 GiB", "20.13 GiB", this_process="20.57 GiB", unallocated="755.50 KiB",
            suggestion=SPLIT,
        ),
    ),
    "capacty_gpu_3": Real(
        "https://github.com/meta-llama/llama/issues/918", "2.1",
        _caching(
            "448.00 MiB", "15.77 GiB", "289.38 MiB", "14.66 GiB", gpu=3, this_process="15.49 GiB",
            unallocated="483.75 MiB", suggestion=SPLIT,
        ),
    ),
    "capacity": Real(
        "https://github.com/pytorch/pytorch/issues/16417, a comment of 2024-03-13", "",
        _caching(
            "22.00 MiB", "23.65 GiB", "11.06 MiB", "22.90 GiB", this_process="23.60 GiB", unallocated="194.87 MiB",
            suggestion=EXPANDABLE,
        ),
    ),
    "capacity_other_process": Real(
        "https://github.com/lianqi1008/Control-GIC/issues/6", "",
        _caching(
            "112.89 GiB", "79.14 GiB", "58.59 GiB", "8.27 GiB", others=[("4078482", "11.29 GiB")],
            this_process="9.25 GiB", unallocated="500.38 MiB", suggestion=EXPANDABLE,
        ),
    ),
    "capacity_three_processes": Real(
        "https://github.com/qibin0506/llm_trainer/issues/2", "",
        _caching(
            "30.00 MiB", "79.32 GiB", "6.88 MiB", "9.56 GiB",
            others=[("1563103", "9.89 GiB"), ("1563102", "35.03 GiB"), ("1563104", "23.79 GiB")],
            this_process="10.58 GiB", unallocated="534.22 MiB", suggestion=EXPANDABLE,
        ),
    ),
    "capacity_unknown_use": Real(
        "https://github.com/linkedin/Liger-Kernel/pull/47", "",
        _caching("1.95 GiB", "8.00 GiB", "0 bytes", "13.67 GiB", unallocated="9.62 MiB", suggestion=EXPANDABLE),
    ),
    "container_pools": Real(
        "https://github.com/kaito-project/kaito/issues/976", "",
        _caching(
            "546.00 MiB", "15.77 GiB", "514.19 MiB", "13.73 GiB", others=[("562167", "15.25 GiB")],
            private_pools="46.00 MiB", unallocated="736.86 MiB", suggestion=EXPANDABLE,
        ),
    ),
    "pools_wrapped": Real(
        "a public repository's development log of 2025-10-08, which names no address", "",
        _caching(
            "60.00 MiB", "79.19 GiB", "39.06 MiB", "72.36 GiB", gpu=1, this_process="79.14 GiB",
            private_pools="436.00 MiB", unallocated="71.59 MiB",
        ),
    ),
    "pools_engine": Real(
        "https://github.com/vllm-project/vllm/issues/27508", "",
        _caching(
            "786.00 MiB", "79.11 GiB", "140.75 MiB", "68.83 GiB", others=[("3270336", "78.96 GiB")],
            private_pools="660.00 MiB", unallocated="331.08 MiB", suggestion=EXPANDABLE,
        ),
    ),
    "notebook_optimizer": Real(
        "a public notebook, which names no address", "",
        _caching(
            "2.00 MiB", "47.53 GiB", "896.00 KiB", "47.00 GiB", others=[("1686436", "47.51 GiB")],
            private_pools="46.22 GiB", unallocated="149.10 MiB", suggestion=EXPANDABLE,
        ),
    ),
    "ranks": Real(
        "https://github.com/meta-llama/llama-cookbook/issues/949", "",
        _caching(
            "3.91 GiB", "14.61 GiB", "1.99 GiB", "8.50 GiB", gpu=2, this_process="12.62 GiB", unallocated="3.96 GiB",
            suggestion=EXPANDABLE,
        ),
    ),
    "traceback_backward": Real(
        "https://github.com/NVIDIA-NeMo/Automodel/issues/3907", "",
        _caching("720.00 MiB", "184.31 GiB", "443.94 MiB", "171.63 GiB", unallocated="2.00 GiB"),
    ),
    "hip": Real(
        "https://github.com/kyuz0/amd-strix-halo-image-video-toolboxes/issues/3", "",
        _caching(
            "3.31 GiB", "128.00 GiB", "780.24 MiB", "57.70 GiB", backend="HIP", unallocated="75.82 MiB",
            suggestion=EXPANDABLE.replace("CUDA", "HIP"),
        ),
    ),
    "hip_allowed": Real(
        "https://github.com/ROCm/TheRock/issues/2118", "2.9",
        _caching(
            "2.00 MiB", "287.98 GiB", "275.86 GiB", "1017.01 MiB", backend="HIP", limit="1.05 GiB",
            private_pools="17.00 MiB", unallocated="54.99 MiB", suggestion=EXPANDABLE,
        ),
    ),
    "hip_much_free": Real(
        "https://github.com/pytorch/pytorch/issues/175431", "",
        _caching(
            "2.00 MiB", "287.98 GiB", "203.49 GiB", "68.63 GiB", backend="HIP", gpu=7, unallocated="14.93 GiB",
            suggestion=EXPANDABLE,
        ),
    ),
    "xpu": Real(
        "https://github.com/intel/intel-extension-for-pytorch/issues/851", "2.8",
        _caching("4.00 GiB", "13.74 GiB", None, "10.10 GiB", backend="XPU", unallocated="3.47 GiB", suggestion=EMPTY),
    ),
    "xpu_allowed": Real(
        "https://github.com/intel/torch-xpu-ops/issues/2392", "",
        _caching(
            "8.11 GiB", "16.54 GiB", "16.54 GiB", "0 bytes", backend="XPU", limit="8.27 GiB", unallocated="0 bytes",
            suggestion=EMPTY,
        ),
    ),
    "xpu_extension": Real(
        "https://github.com/intel/intel-extension-for-pytorch/issues/629", "",
        _caching("6.85 GiB", "15.56 GiB", None, "0 bytes", backend="XPU", reserved="0 bytes", block_limit=True),
    ),
    "xpu_extension_out": Real(
        "https://github.com/intel/intel-extension-for-pytorch/issues/629", "",
        _caching("1.71 GiB", "15.56 GiB", None, "176.00 MiB", backend="XPU", reserved="176.00 MiB"),
    ),
    "mps_gb": Real(
        "https://github.com/lllyasviel/Fooocus/issues/1139", "",
        {
            "kind": "mps", "backend": "MPS", "asked": "6.25 MB", "allocated": "8.89 GB", "limit": "9.07 GB",
            "other_allocations": "172.98 MB", "pool": "private", "suggestion": WATERMARK,
        },
    ),
    "mps_gib": Real(
        "https://github.com/Comfy-Org/ComfyUI/issues/8984", "",
        {
            "kind": "mps", "backend": "MPS", "asked": "5.81 GiB", "allocated": "15.72 GiB", "limit": "18.13 GiB",
            "other_allocations": "2.41 MiB", "pool": "private", "suggestion": WATERMARK,
        },
    ),
    "async": Real(
        "https://github.com/AIFSH/ComfyUI-ChatTTS/issues/9", "",
        {
            "kind": "async", "backend": "CUDA", "gpu": 0, "asked": "320.00 MiB", "capacity": "23.69 GiB",
            "free": "2.94 MiB", "allocated": "6.89 GiB",
        },
    ),
    "cpu_linux": Real(
        "https://github.com/JingyunLiang/VRT/issues/49", "",
        {"kind": "cpu", "backend": "CPU", "asked": "116813856768 bytes"},
    ),
    "cpu_err": Real(
        "https://github.com/mxfold/mxfold2/issues/20", "",
        {"kind": "cpu", "backend": "CPU", "asked": "132426121216 bytes"},
    ),
    "cpu_windows": Real(
        "https://github.com/MaximeVandegar/Papers-in-100-Lines-of-Code/issues/10", "",
        {"kind": "cpu", "backend": "CPU", "asked": "1981808640 bytes"},
    ),
    "cpu_buy_ram": Real(
        "https://github.com/pytorch/pytorch/issues/5434", "0.3.1",
        {"kind": "cpu", "backend": "CPU", "asked": "72 GB", "suggestion": "more RAM"},
    ),
    "cublas": Real(
        "https://github.com/QwenLM/Qwen3/issues/873", "",
        {"kind": "library", "backend": "CUDA", "library": "CUBLAS_STATUS_ALLOC_FAILED"},
    ),
    "driver": Real("https://github.com/taohan10200/IIM/issues/28", "", {"kind": "driver", "backend": "CUDA"}),
    "driver_worker": Real(
        "https://github.com/vllm-project/vllm/issues/19186", "", {"kind": "driver", "backend": "CUDA"}
    ),
    "driver_accelerator": Real(
        "https://github.com/deepbeepmeep/Wan2GP/issues/1083", "", {"kind": "driver", "backend": "CUDA"}
    ),
    "nvml": Real("https://github.com/pytorch/pytorch/issues/121899", "", {"kind": "nvml", "backend": "CUDA"}),
    "nvml_handle": Real("https://github.com/pytorch/pytorch/issues/112950", "", {"kind": "nvml", "backend": "CUDA"}),
}  # fmt: skip
