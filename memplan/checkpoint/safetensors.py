"""A file of safetensors (safetensors/src/tensor.rs, `prepare`): 8 bytes that say how long the header is, the header in
JSON with blanks up to a multiple of 8, and the tensors one after the other."""

from __future__ import annotations

from collections.abc import Mapping

from memplan.checkpoint.saved import SavedTensor

DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "fp16": "F16", "bf16": "BF16", "int32": "I32",
    "fp32": "F32", "fp64": "F64", "int64": "I64",
}  # fmt: skip
"""In the serialiser's order of alignment: the file has the last of these first."""

_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES)}

METADATA = {"format": "pt"}
"""What `save_pretrained` says about every file."""


def header_size(tensors: Mapping[str, SavedTensor], metadata: Mapping[str, str] = METADATA) -> int:
    """Bytes before the first tensor. Tensors are ordered by dtype, those of one dtype by name."""
    lines = []
    if metadata:
        lines.append(
            f'"__metadata__":{{{",".join(f"{_text(key)}:{_text(value)}" for key, value in metadata.items())}}}'
        )
    offset = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-_RANK[item[1].dtype], item[0].encode())):
        end = offset + tensor.nbytes
        shape = ",".join(map(str, map(int, tensor.shape)))
        dtype = DTYPES[tensor.dtype]
        lines.append(f'{_text(name)}:{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offset},{end}]}}')
        offset = end
    length = len(f"{{{','.join(lines)}}}".encode())
    return 8 + length + -length % 8


def _text(text: str) -> str:
    """`text` in JSON, as serde writes it: what is not ASCII stays as it is."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json

    return json.dumps(text, ensure_ascii=False)
