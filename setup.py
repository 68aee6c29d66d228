"""Packages and extras. Install torch first (`pip install torch==2.13.0`), then `pip install -e .[demo,dev]`."""

from setuptools import find_packages, setup

# preprocessing/ needs only this: a login node without torch can clean, train a tokenizer and write .bin/.idx.
BASE = [
    "numpy>=1.26",
    "orjson>=3.10",
    "pydantic>=2.7,<3",
    "pyyaml>=6",
    "rich>=13",
    "tokenizers>=0.22",
    "tyro==1.0.17",
    "zstandard>=0.22",
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

LM_EVAL = "lm-eval==0.4.13"  # EleutherAI's harness, on exported folders

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
            )
            for suffix in ("", ".*")
        ]
    ),
    package_data={"evaluation.report": ["page.html.j2", "page.css"], "megatron_recipes": ["curricula/*.yaml"]},
    install_requires=BASE,
    extras_require={
        "cpu": TRAIN,
        # transformer-engine and flash-attn compile against the torch that is installed; see README, "On GPUs".
        "gpu": [
            *TRAIN,
            "transformer-engine[pytorch]>=2.4",
            "flash-attn>=2.7",
            'megatron-bridge>=0.3.1; python_version >= "3.12"',
        ],
        "demo": [
            *TRAIN,
            "bm25s==0.3.16",
            "jinja2>=3.1",
            "lxml>=5",
            "matplotlib>=3.9",
            "scipy>=1.11",
            "pytrec-eval-terrier==0.5.11",
            "sentence-transformers==6.2.0",
            "datasets>=3",
            "accelerate>=1.2",
        ],
        "eval": [LM_EVAL],
        "dev": [
            LM_EVAL,
            "gguf>=0.17",
            "hypothesis>=6.100",
            "mypy>=1.13",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "ruff>=0.8",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["mecellem=mecellem.cli:main"]},
)
