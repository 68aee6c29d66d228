"""Small folders with random weights: a byte-level tokenizer with a chat template like Llama 3's, judges and writers."""

from __future__ import annotations

import json
from pathlib import Path

import torch

HIDDEN = 32
AXES = ("statute_reference", "legal_accuracy", "case_law_reference", "linguistic_coherence", "depth_coverage")
SPECIALS = ("<|pad|>", "<|begin|>", "<|eot|>", "<|start|>", "<|end|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|end|>\\n\\n' + m['content'] | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\\n\\n' }}{% endif %}"
)
SHAPE = {
    "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False,
}  # fmt: skip


def write_tokenizer(folder: Path, template: str | None = TEMPLATE, pair: bool = False) -> int:
    """Bytes and five special tokens; with `pair` it wraps texts as BERT does. Returns the size of the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*SPECIALS, *letters))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    if pair:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A <|end|>",
            pair="<|begin|> $A <|end|> $B:1 <|end|>:1",
            special_tokens=[("<|begin|>", 1), ("<|end|>", 4)],
        )
    else:
        tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", bos_token="<|begin|>", eos_token="<|eot|>",
        model_input_names=["input_ids", "attention_mask", *(["token_type_ids"] if pair else [])],
    )  # fmt: skip
    fast.chat_template = template
    fast.save_pretrained(folder)
    return len(vocabulary)


def write_armorm(folder: Path, seed: int = 0, axes: int = len(AXES), named: bool = True, gate: bool = True, **config) -> Path:
    """ArmoRM's layout, as its own code saves it: custom class, code in the folder, heads beside the backbone."""
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaModel

    size = write_tokenizer(folder)
    torch.manual_seed(seed)
    backbone = LlamaModel(LlamaConfig(vocab_size=size, pad_token_id=0, **SHAPE))
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    tensors["regression_layer.weight"] = torch.randn(axes, HIDDEN) * 0.3
    tensors["reward_transform_matrix"] = torch.eye(axes) - 0.2 * torch.rand(axes, axes)
    if gate:
        for number, (rows, columns) in enumerate(((24, HIDDEN), (24, 24), (axes, 24))):
            tensors[f"gating.layers.{number}.weight"] = torch.randn(rows, columns)
            tensors[f"gating.layers.{number}.bias"] = torch.randn(rows)
        tensors["gating.logit_scale"] = torch.tensor([1.7])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = backbone.config.to_dict() | {
        "architectures": ["LlamaForRewardModelWithGating"],
        "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"},
        "num_objectives": axes, "gating_temperature": 2.5, "gating_hidden_dim": 24, "gating_n_hidden": 2,
    }  # fmt: skip
    if named and axes == len(AXES):
        values |= {"id2label": {str(number): name for number, name in enumerate(AXES)}, "label2id": {}}
    (folder / "config.json").write_text(json.dumps(values | config))
    (folder / "modeling_custom.py").write_text("raise SystemExit('code of the folder was run')\n")
    return folder


def write_classifier(folder: Path, seed: int = 0, padding: bool = True, axes: tuple[str, ...] = AXES) -> Path:
    """A Llama with transformers' own sequence classification head, one label an axis."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    size = write_tokenizer(folder)
    torch.manual_seed(seed)
    names = dict(enumerate(axes))
    config = LlamaConfig(vocab_size=size, pad_token_id=0 if padding else None, id2label=names, num_labels=len(names), **SHAPE)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_bert(folder: Path, seed: int = 0) -> Path:
    """An encoder that reads prompt and continuation as a pair, without a chat template; one score."""
    from transformers import BertConfig, BertForSequenceClassification

    size = write_tokenizer(folder, template=None, pair=True)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=size, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=128, pad_token_id=0, num_labels=1, initializer_range=0.2,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_writer(folder: Path, seed: int = 0) -> Path:
    """A causal model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = write_tokenizer(folder)
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(vocab_size=size, pad_token_id=0, **SHAPE)).save_pretrained(folder)
    return folder
