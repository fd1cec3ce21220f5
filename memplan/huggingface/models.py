"""Which file builds which model_type."""

from __future__ import annotations

from importlib import import_module

from memplan.config.library.model import LibraryModel
from memplan.huggingface.settings import Settings
from memplan.ops.module import Module
from memplan.ops.trace import Trace

MODELS = {
    "LlamaForCausalLM": ("llama", "ForCausalLM"),
    "MistralForCausalLM": ("mistral", "ForCausalLM"),
    "MixtralForCausalLM": ("mixtral", "ForCausalLM"),
    "Qwen2ForCausalLM": ("qwen2", "ForCausalLM"),
    "Qwen3ForCausalLM": ("qwen3", "ForCausalLM"),
    "Qwen3MoeForCausalLM": ("qwen3_moe", "ForCausalLM"),
    "Gemma2ForCausalLM": ("gemma2", "ForCausalLM"),
    "Gemma3ForCausalLM": ("gemma3", "ForCausalLM"),
    "Phi3ForCausalLM": ("phi3", "ForCausalLM"),
    "Olmo2ForCausalLM": ("olmo2", "ForCausalLM"),
    "GPT2LMHeadModel": ("gpt2", "LMHeadModel"),
    "GPTNeoXForCausalLM": ("gpt_neox", "ForCausalLM"),
    "OPTForCausalLM": ("opt", "ForCausalLM"),
    "BloomForCausalLM": ("bloom", "ForCausalLM"),
    "FalconForCausalLM": ("falcon", "ForCausalLM"),
    "Starcoder2ForCausalLM": ("starcoder2", "ForCausalLM"),
    "DeepseekV2ForCausalLM": ("deepseek_v2", "ForCausalLM"),
    "DeepseekV3ForCausalLM": ("deepseek_v3", "ForCausalLM"),
    "GptOssForCausalLM": ("gpt_oss", "ForCausalLM"),
    "BertForMaskedLM": ("bert", "ForMaskedLM"),
    "RobertaForMaskedLM": ("roberta", "ForMaskedLM"),
    "DistilBertForMaskedLM": ("distilbert", "ForMaskedLM"),
    "ElectraForMaskedLM": ("electra", "ForMaskedLM"),
    "DebertaV2ForMaskedLM": ("deberta_v2", "ForMaskedLM"),
    "ModernBertForMaskedLM": ("modernbert", "ForMaskedLM"),
    "T5ForConditionalGeneration": ("t5", "ForConditionalGeneration"),
    "BartForConditionalGeneration": ("bart", "ForConditionalGeneration"),
    "PegasusForConditionalGeneration": ("pegasus", "ForConditionalGeneration"),
    "MBartForConditionalGeneration": ("mbart", "ForConditionalGeneration"),
    "ViTForImageClassification": ("vit", "ForImageClassification"),
}
"""The library's class -> module beside this one, class. Only the module that is asked for is imported."""


def build_model(trace: Trace, config: LibraryModel, settings: Settings) -> Module:
    """The model that `config` trains, without memory yet."""
    module, name = MODELS[config.head_class]
    model: Module = getattr(import_module(f"memplan.huggingface.{module}"), name)(trace, config, settings)
    return model
