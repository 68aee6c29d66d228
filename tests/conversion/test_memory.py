"""Conversion needs the memory of its largest tensor, not of the model: the peak of a real process, both ways."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hf_folders import decoder, write_folder

# Peaks of a process that first converts a small model (everything is imported and warm), then a large one.
SCRIPT = """
import json, sys
from pathlib import Path
from conversion.export import export_checkpoint
from conversion.hf_import import import_folder

def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024

small, large, out = map(Path, sys.argv[1:])
peaks = []
for folder in (small, large):
    import_folder(folder, out / folder.name)
    peaks.append(peak())
for name in (small.name, large.name):
    export_checkpoint(out / name, out / f"{name} back", shard_bytes=100_000_000)
    peaks.append(peak())
print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_peak_memory(sample_tokenizer: Path, tmp_path: Path):
    shape = decoder(hidden_size=512, ffn_hidden_size=4096, num_layers=14, vocab_size=40_000, num_attention_heads=8)
    large = write_folder(tmp_path / "large", shape, sample_tokenizer)
    small = write_folder(tmp_path / "small", decoder(), sample_tokenizer)
    largest, total = 40_000 * 512 * 4, (large / "model.safetensors").stat().st_size
    assert total > 5 * largest
    line = [sys.executable, "-c", SCRIPT, str(small), str(large), str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    imported_small, imported, _, exported = json.loads(done.stdout.splitlines()[-1])
    bound = 1.5 * largest + 1e9
    assert imported < bound and exported < bound, (imported, exported, bound)
    growth = exported - imported_small  # beside what Python, torch and the small model take
    assert growth < 2.5 * largest < total / 2, (growth, largest, total)
