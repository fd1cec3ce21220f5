"""Every model_type that is modelled as the library runs it, and the class that holds its configuration."""

from __future__ import annotations

from importlib import import_module

from memplan.config.fields import did_you_mean, show
from memplan.config.library.model import LibraryModel
from memplan.errors import ConfigurationError, NotModelledError

TYPES = {
    "llama": ("llama", "Llama"),
    "mistral": ("mistral", "Mistral"),
    "mixtral": ("mixtral", "Mixtral"),
    "qwen2": ("qwen", "Qwen2"),
    "qwen3": ("qwen", "Qwen3"),
    "qwen3_moe": ("qwen_moe", "Qwen3Moe"),
    "gemma2": ("gemma", "Gemma2"),
    "gemma3_text": ("gemma", "Gemma3Text"),
    "phi3": ("phi", "Phi3"),
    "olmo2": ("olmo", "Olmo2"),
    "gpt2": ("gpt2", "GPT2"),
    "gpt_neox": ("gpt_neox", "GPTNeoX"),
    "opt": ("opt", "OPT"),
    "bloom": ("bloom", "Bloom"),
    "falcon": ("falcon", "Falcon"),
    "starcoder2": ("starcoder", "Starcoder2"),
    "deepseek_v2": ("deepseek", "DeepseekV2"),
    "deepseek_v3": ("deepseek", "DeepseekV3"),
    "gpt_oss": ("gpt_oss", "GptOss"),
    "bert": ("bert", "Bert"),
    "roberta": ("roberta", "Roberta"),
    "distilbert": ("distilbert", "DistilBert"),
    "electra": ("electra", "Electra"),
    "deberta-v2": ("deberta", "DebertaV2"),
    "modernbert": ("modernbert", "ModernBert"),
    "t5": ("t5", "T5"),
    "bart": ("bart", "Bart"),
    "pegasus": ("pegasus", "Pegasus"),
    "mbart": ("mbart", "MBart"),
    "vit": ("vit", "ViT"),
}
"""model_type -> module beside this one, class. Only the module that is asked for is imported."""


def library_type(model_type: object, where: str = "model") -> type[LibraryModel]:
    """The class of a model_type. Raises ConfigurationError where none is given, NotModelledError for unknown ones."""
    known = ", ".join(TYPES)
    if not isinstance(model_type, str):
        what = "is missing" if model_type is None else f"must be text, not {show(model_type)}"
        raise ConfigurationError(f"{where}: model_type: {what}; known are {known}")
    if model_type not in TYPES:
        close = did_you_mean(model_type, TYPES)
        raise NotModelledError(
            f"{where}: model_type {show(model_type)} is not modelled{close}", f"known model types are {known}"
        )
    module, name = TYPES[model_type]
    kind: type[LibraryModel] = getattr(import_module(f"memplan.config.library.{module}"), name)
    return kind
