"""Small causal models with random weights: Llama with BOS, Qwen3 with EOS only."""

from __future__ import annotations

from pathlib import Path

import torch


def write_model(
    folder: Path, tokenizer_folder: Path, family: str, seed: int = 0, dtype: torch.dtype = torch.float32, rows: int = 0
) -> Path:
    from tokenizers.processors import ByteLevel
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    bos, eos = tokenizer.cls_token, tokenizer.sep_token
    shape = {
        "vocab_size": rows or len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": family == "qwen3",
        "initializer_range": 0.15,  # far from uniform predictions
        "bos_token_id": None if family == "qwen3" else tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    kinds = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}
    config, model = kinds[family]
    model(config(**shape)).to(dtype).save_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)  # an encoder's wraps texts in [CLS], [SEP]
    tokenizer.eos_token = eos
    tokenizer.bos_token = None if family == "qwen3" else bos
    tokenizer.save_pretrained(folder)
    return folder
