"""The `README.md` of an exported model: what it is, what it was proven to compute, how to load it, what it cannot do."""

from __future__ import annotations

from pathlib import Path

from conversion.verify import Verification
from megatron_recipes.config import DecoderConfig, EncoderConfig
from megatron_recipes.engine.checkpoint import CheckpointMeta


def write_card(folder: Path, meta: CheckpointMeta, result: Verification) -> None:
    """Write the card into `folder`."""
    model = meta.model
    text = _encoder(model) if isinstance(model, EncoderConfig) else _decoder(model)
    versions = ", ".join(f"{name} {number}" for name, number in meta.versions.items())
    origin = f"trained with Megatron-Core on {meta.tokens:,} tokens (recipe `{meta.name}`)"
    if meta.step == 0:
        origin = f"the weights of `{meta.name}` as they were imported: not trained further"
    trained = f"Trained with {versions}, precision {meta.precision}." if meta.step else f"Written with {versions}."
    (folder / "README.md").write_text(
        f"""---
language: tr
library_name: transformers
pipeline_tag: {text.task}
tags: [{text.tag}, megatron-core, mecellem]
---

# {meta.name}{f", step {meta.step:,}" if meta.step else ""}

A {text.what}, {origin}.

{text.table}

## Proof of conversion

This folder was loaded with plain transformers and compared, in fp32, with the Megatron model it comes from:
{result.tokens_compared:,} tokens of Turkish text in {result.sequences_compared} sequences of up to \
{result.longest_sequence:,} tokens, padded and unpadded. Largest logit difference {result.max_logit_difference:.2e}
(allowed {result.tolerance:.2e}), top-1 agreement {result.top1_agreement:.2%}. {text.proof}
All figures are in `verification.json`. {trained}

## Use

```python
from transformers import {text.auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = {text.auto}.from_pretrained("FOLDER")
```

## Limits

{text.limits}
""",
        encoding="utf-8",
    )


class _Text:
    """What a card says of one kind of model."""

    def __init__(self, task: str, tag: str, what: str, auto: str, columns: dict[str, str], proof: str, limits: str) -> None:
        self.task, self.tag, self.what, self.auto, self.proof, self.limits = task, tag, what, auto, proof, limits
        self.table = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n| {' | '.join(columns.values())} |"


def _encoder(model: EncoderConfig) -> _Text:
    return _Text(
        "fill-mask",
        "modernbert",
        "ModernBERT masked language model",
        "AutoModelForMaskedLM",
        {
            "layers": str(model.num_layers),
            "hidden": f"{model.hidden_size:,}",
            "GeGLU": f"{model.ffn_hidden_size:,}",
            "heads": str(model.num_attention_heads),
            "vocabulary": f"{model.vocab_size:,}",
            "positions": f"{model.max_sequence_length:,}",
            "local window": str(model.local_attention),
            "global every": str(model.global_attention_every),
            "RoPE local / global": f"{model.local_rope_theta:,.0f} / {model.global_rope_theta:,.0f}",
        },
        "The decoder is tied to the embedding.",
        "A masked language model fills gaps; it is no retriever until it has been post-trained contrastively, and its answers\n"
        "are not legal advice. It knows what its training text knew, including its errors.",
    )


def _decoder(model: DecoderConfig) -> _Text:
    scaling = model.rope_scaling
    scaled = "" if scaling.rope_type == "none" else f", {scaling.rope_type} {scaling.factor:g}"
    return _Text(
        "text-generation",
        model.family,
        f"causal language model of the {model.family.capitalize()} family",
        "AutoModelForCausalLM",
        {
            "layers": str(model.num_layers),
            "hidden": f"{model.hidden_size:,}",
            "SwiGLU": f"{model.ffn_hidden_size:,}",
            "heads": f"{model.num_attention_heads} ({model.num_query_groups} of keys and values)",
            "vocabulary": f"{model.vocab_size:,}",
            "positions": f"{model.max_sequence_length:,}",
            "RoPE": f"{model.rope_theta:,.0f}{scaled}",
            "head": "tied to the embedding" if model.tie_embeddings else "its own",
        },
        "Both continue a Turkish sentence alike, token by token.",
        "A language model continues text; what it writes may be wrong and is not legal advice. It knows what its training\n"
        "text knew, including its errors, and those of the model that it started from.",
    )
