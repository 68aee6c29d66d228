"""Conversion needs the memory of its largest tensor, not of the model: the peaks of real processes, each way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hf_folders import decoder, write_folder
from safetensors.torch import load_file, save_file

VOCABULARIES, HIDDEN = (60_000, 180_000), 256  # the same layers below two embeddings, which are the largest tensors
SHARE = 1.5  # of the largest tensor: what may be in memory of it

# Peaks of one process that converts two folders, the smaller one first.
SCRIPT = """
import json, sys
from pathlib import Path
from conversion.export import export_checkpoint
from conversion.hf_import import import_folder

def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024

convert = {"import": import_folder, "export": export_checkpoint}[sys.argv[1]]
peaks = []
for names in (sys.argv[2:4], sys.argv[4:6]):
    convert(*map(Path, names))
    peaks.append(peak())
print(json.dumps(peaks))
"""


def peaks(way: str, *folders: Path) -> list[int]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, way, *map(str, folders)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_peak_memory_follows_the_largest_tensor_once(sample_tokenizer: Path, tmp_path: Path):
    for rows in VOCABULARIES:
        folder = write_folder(
            tmp_path / f"hf {rows}", decoder(hidden_size=HIDDEN, num_layers=2, vocab_size=rows), sample_tokenizer
        )
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights[
            "model.embed_tokens.weight"
        ].clone()  # as Qwen3-0.6B has it: tied, stored all the same
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        del weights
    small, large = (rows * HIDDEN * 4 for rows in VOCABULARIES)
    for way, source, target in (("import", "hf", "checkpoint"), ("export", "checkpoint", "back")):
        folders = [tmp_path / f"{kind} {rows}" for rows in VOCABULARIES for kind in (source, target)]
        before, after = peaks(way, *folders)
        slope = (after - before) / (large - small)
        assert slope <= SHARE, (way, slope, before, after)
        assert after < SHARE * large + 1e9, (way, after)
