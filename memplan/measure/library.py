"""Models of Hugging Face's library transformers, built from their configuration with random weights, and trained as
the library's documentation does it in plain PyTorch: the twin of memplan/huggingface/program.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from memplan.config.library.model import LibraryModel
from memplan.config.run import TrainingRun
from memplan.config.runs import Run
from memplan.config.setups import weight_dtype
from memplan.errors import MissingDependencyError
from memplan.huggingface.releases import check_release
from memplan.measure.run import IGNORED_LABEL, _real_tokens, marked
from memplan.reference.training import AUTOCAST, WEIGHTS, AnyOptimizer, Mark, freeze, update

IMPLEMENTATIONS = {"naive": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}
"""What the library calls the ways to attend."""

NOT_FOR_THE_LIBRARY = ("model_type", "head_class", "implementation", "name")


def build_model(config: LibraryModel, run: Run, dtype: torch.dtype | None = None) -> nn.Module:
    """The model that is trained, on the CPU; or, with a `dtype`, one that writes. Raises MissingDependencyError where
    the library is not installed."""
    import_what_is_needed(run)
    import transformers

    check_release(transformers.__version__)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    values = {name: getattr(config, name) for name in type(config).__dataclass_fields__}
    for name in NOT_FOR_THE_LIBRARY:
        values.pop(name)
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    values |= config.for_the_library()
    settings = transformers.AutoConfig.for_model(config.model_type, **values)
    vocabulary, padding = getattr(config, "vocab_size", 0), getattr(settings, "pad_token_id", None)
    if padding is not None and 0 < vocabulary <= padding:  # a default beyond so small a vocabulary
        settings.pad_token_id = vocabulary - 1
    kind = getattr(transformers, config.head_class)
    if dtype is None:
        assert isinstance(run, TrainingRun)
        dtype = WEIGHTS[weight_dtype(run)]
    model: nn.Module = kind._from_config(settings, dtype=dtype, attn_implementation=IMPLEMENTATIONS[run.attention])
    if isinstance(run, TrainingRun) and run.weight_quantization != "none":
        quantise(model, run)
    if isinstance(run, TrainingRun) and run.lora_rank:
        model = add_adapters(model, run)
    model.train()
    if not isinstance(run, TrainingRun):
        return model
    freeze(model, run)
    if run.recompute == "full":
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # type: ignore[operator]
        for module in model.modules():
            original = getattr(module, "_gradient_checkpointing_func", None)
            if original is not None:
                module._gradient_checkpointing_func = partial(_checkpointed, original)  # type: ignore[assignment]
    return model


def import_what_is_needed(run: Run) -> None:
    """Raises MissingDependencyError where a library is not installed."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "the real run of this model needs transformers, which is not installed",
            'pip install "memplan[transformers]"',
        ) from error
    if run.weight_quantization != "none":
        try:
            from bitsandbytes.nn import modules
        except ImportError as error:
            raise MissingDependencyError(
                "the real run of quantised weights needs bitsandbytes, which is not installed",
                "pip install bitsandbytes",
            ) from error
        bitsandbytes: Any = modules
        bitsandbytes.Linear4bit(64, 64, compress_statistics=True, quant_type="nf4").to("cpu")  # makes its tables
    if isinstance(run, TrainingRun) and run.lora_rank:
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                "the real run of adapters needs peft, which is not installed", "pip install peft"
            ) from error


COMPUTE = {"bf16": torch.bfloat16, "bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


def quantise(model: Any, run: TrainingRun) -> None:
    """The model's linear layers in bitsandbytes' formats, as from_pretrained has it of a BitsAndBytesConfig: the same
    layers, made of the model's own weights (transformers/integrations/bitsandbytes.py)."""
    from bitsandbytes.nn import modules as untyped
    from transformers import BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import HfQuantizer

    nf4 = run.weight_quantization == "nf4"
    bitsandbytes: Any = untyped
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=nf4,
        load_in_8bit=not nf4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=run.double_quantization,
        bnb_4bit_compute_dtype=COMPUTE.get(run.precision, torch.float32),
    )
    before = dict(model.named_modules())
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replace_with_bnb_linear(model, kept, config)
    kind = bitsandbytes.Params4bit if nf4 else bitsandbytes.Int8Params
    for name, module in model.named_modules():
        if isinstance(module, (bitsandbytes.Linear4bit, bitsandbytes.Linear8bitLt)):
            weight = before[name].weight.data
            weight = weight.T if isinstance(before[name], Conv1D) else weight
            settings = {key: value for key, value in vars(module.weight).items() if key not in ("CB", "SCB")}
            module.weight = kind(weight, requires_grad=False, **settings).to("cpu")
            module.bias = before[name].bias
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = nf4, not nf4


def add_adapters(model: nn.Module, run: TrainingRun) -> nn.Module:
    """The model with adapters, as peft has it: checkpointing is switched on afterwards, as the library's trainer does
    it."""
    import peft

    config = peft.LoraConfig(
        r=run.lora_rank,
        lora_alpha=2 * run.lora_rank,
        lora_dropout=run.lora_dropout,
        target_modules=list(run.lora_targets),
    )
    adapted: nn.Module = peft.get_peft_model(model, config, autocast_adapter_dtype=run.lora_dtype == "fp32")
    return adapted


def build_model_on(config: LibraryModel, run: TrainingRun, target: torch.device) -> nn.Module:
    """The same on a card: parameters in the order of `model.parameters()`, then buffers, so that moving them leaves no
    gaps in the caching allocator's segments. Tied parameters stay one."""
    model = build_model(config, run)
    moved: dict[nn.Parameter, nn.Parameter] = {}  # keyed by identity, as tensors are
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter not in moved:
                    moved[parameter] = nn.Parameter(parameter.to(target), requires_grad=parameter.requires_grad)
                setattr(module, name, moved[parameter])
        for module in model.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, buffer.to(target))
    return model


def _checkpointed(original: Callable[..., Any], forward: Callable[..., Any], *arguments: Any) -> Any:
    return original(marked(forward), *arguments)


class LibraryBatch:
    """One micro-batch, by the names of the library's arguments."""

    input_ids: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    pixel_values: torch.Tensor | None = None


def make_library_batch(config: LibraryModel, run: TrainingRun, target: torch.device | None = None) -> LibraryBatch:
    """Random tokens, labelled with themselves; with padding every second sequence and the last are half padding: the
    library passes over a mask that hides nothing. Or random images, each with a class."""
    batch = _images(config, run) if config.tokens_of_an_image else _sequences(config, run)
    if target is not None:
        for name, tensor in vars(batch).items():
            setattr(batch, name, tensor.to(target))
    return batch


def _images(config: LibraryModel, run: TrainingRun) -> LibraryBatch:
    batch = LibraryBatch()
    size, channels, classes = (int(getattr(config, name)) for name in ("image_size", "num_channels", "num_labels"))
    batch.pixel_values = torch.randn(run.micro_batch_size, channels, size, size)
    batch.labels = torch.randint(0, classes, (run.micro_batch_size,))
    return batch


def _sequences(config: LibraryModel, run: TrainingRun) -> LibraryBatch:
    batch = LibraryBatch()
    rows, length = run.micro_batch_size, run.source_length or run.sequence_length
    vocabulary = int(getattr(config, "vocab_size", 0))
    batch.input_ids = torch.randint(0, vocabulary, (rows, length))
    batch.labels = torch.randint(0, vocabulary, (rows, run.target_length or length))
    if run.padding:
        batch.attention_mask = _real_tokens(rows, length).long()
        batch.attention_mask[-1, length // 2 :] = 0
        if not run.target_length:
            batch.labels[batch.attention_mask == 0] = IGNORED_LABEL
    return batch


def train_step(
    model: nn.Module,
    optimizer: AnyOptimizer,
    batch: LibraryBatch,
    run: TrainingRun,
    mark: Mark,
    scaler: torch.amp.GradScaler | None = None,
) -> object:
    """One optimizer step over `gradient_accumulation_steps` micro-batches. What the model returns, its logits among it,
    is held until the step is over."""
    mark("zero_grad")
    optimizer.zero_grad(set_to_none=True)
    for _ in range(run.gradient_accumulation_steps):
        outputs = forward(model, batch, run, mark)
        loss = outputs.loss
        if run.gradient_accumulation_steps > 1:
            loss = loss / run.gradient_accumulation_steps
        mark("backward")
        if scaler is None:
            loss.backward()
        else:
            scaler.scale(loss).backward()
    mark("optimizer_step")
    update(optimizer, run, scaler)
    mark("end")
    return outputs


def forward(model: nn.Module, batch: LibraryBatch, run: TrainingRun, mark: Mark) -> Any:
    """The model's outputs, its loss among them."""
    dtype = AUTOCAST.get(run.precision)
    device = next(model.parameters()).device.type
    with torch.autocast(device, dtype, enabled=dtype is not None), _marked_loss(_unwrapped(model), mark):
        mark("forward")
        return model(**vars(batch), **_options(model))


def _unwrapped(model: nn.Module) -> nn.Module:
    """The library's own model, in what peft makes of it."""
    inner: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner


def _options(model: nn.Module) -> dict[str, Any]:
    """No key-value cache in training, where a model has one."""
    return {"use_cache": False} if getattr(model.config, "use_cache", None) is not None else {}


@contextmanager
def _marked_loss(model: nn.Module, mark: Mark) -> Iterator[None]:
    """Marks where the loss begins: at the model's loss function, or at cross-entropy where it calls that itself."""
    entropy, function = F.cross_entropy, getattr(model, "loss_function", None)
    begun = False

    def begin() -> None:
        nonlocal begun
        if not begun:
            mark("loss")
        begun = True

    def cross_entropy(*arguments: Any, **keywords: Any) -> Any:
        begin()
        return entropy(*arguments, **keywords)

    def loss_function(*arguments: Any, **keywords: Any) -> Any:
        begin()
        assert function is not None
        return function(*arguments, **keywords)

    F.cross_entropy = cross_entropy
    if function is not None:
        setattr(model, "loss_function", loss_function)  # noqa: B010 (a property of the class, which has a setter)
    try:
        yield
    finally:
        F.cross_entropy = entropy
        if function is not None:
            setattr(model, "loss_function", function)  # noqa: B010
