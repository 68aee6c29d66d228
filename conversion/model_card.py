"""The `README.md` of an exported model: what it is, what it was proven to compute, how to load it, what it cannot do."""

from __future__ import annotations

from pathlib import Path

from conversion.verify import Verification
from megatron_recipes.engine.checkpoint import CheckpointMeta


def write_card(folder: Path, meta: CheckpointMeta, result: Verification) -> None:
    """Write the card into `folder`."""
    model = meta.model
    versions = ", ".join(f"{name} {number}" for name, number in meta.versions.items())
    (folder / "README.md").write_text(
        f"""---
language: tr
library_name: transformers
pipeline_tag: fill-mask
tags: [modernbert, megatron-core, mecellem]
---

# {meta.recipe}, step {meta.step:,}

A ModernBERT masked language model, pre-trained with Megatron-Core on {meta.tokens:,} tokens (recipe `{meta.recipe}`).

| layers | hidden | GeGLU | heads | vocabulary | positions | local window | global every | RoPE local / global |
|---|---|---|---|---|---|---|---|---|
| {model.num_layers} | {model.hidden_size:,} | {model.ffn_hidden_size:,} | {model.num_attention_heads} | {model.vocab_size:,} \
| {model.max_sequence_length:,} | {model.local_attention} | {model.global_attention_every} \
| {model.local_rope_theta:,.0f} / {model.global_rope_theta:,.0f} |

## Proof of conversion

This folder was loaded with plain transformers and compared, in fp32, with the Megatron model it comes from:
{result.tokens_compared:,} tokens of Turkish text in {result.sequences_compared} sequences of up to \
{result.longest_sequence:,} tokens, padded and unpadded. Largest logit difference {result.max_logit_difference:.2e}
(allowed {result.tolerance:.2e}), top-1 agreement {result.top1_agreement:.2%}. The decoder is tied to the embedding.
All figures are in `verification.json`. Trained with {versions}, precision {meta.precision}.

## Use

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForMaskedLM.from_pretrained("FOLDER")
```

## Limits

A masked language model fills gaps; it is no retriever until it has been post-trained contrastively, and its answers are
not legal advice. It knows what its training text knew, including its errors.
""",
        encoding="utf-8",
    )
