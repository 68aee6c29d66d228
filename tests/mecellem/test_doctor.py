import importlib.util
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from mecellem import doctor

Usage = namedtuple("Usage", "total used free")


def run_doctor(*flags, **environment):
    """The command in a process of its own; returns the exit code and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "mecellem", "doctor", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def findings(**environment):
    code, output = run_doctor("--json", **environment)
    return code, {item["subject"]: item for item in json.loads(output)}


def without(monkeypatch, *names):
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: None if name in names else real(name))


def with_version(monkeypatch, name, version):
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda asked: version if asked == name else real(asked))


@pytest.fixture
def fake_gpus(tmp_path):
    """A PATH on which `nvidia-smi` reports two GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nfor i in 1 2; do echo 'NVIDIA H100 80GB HBM3, 81559 MiB, 550.54'; done\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def test_this_machine_runs_the_tests_so_it_can_train():
    code, found = findings()
    assert code == 0, found
    assert len(found) == len(doctor.CHECKS)
    assert found["torch"]["found"].startswith(doctor.installed("torch"))
    assert found["apex"]["status"] == "ok"


def test_table():
    code, text = run_doctor()
    assert code == 0
    assert "this machine can train" in text and "megatron-core" in text


def test_pypis_apex_blocks_training(tmp_path):
    """Its layout, as pip unpacks it: a web toolkit without NVIDIA's sub-packages."""
    for name in ("__init__.py", "lib/__init__.py", "amp/__init__.py", "models.py"):
        (tmp_path / "apex" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "apex" / name).write_text("raise RuntimeError('must not be imported')")
    code, found = findings(PYTHONPATH=str(tmp_path))
    assert code == 1
    assert found["apex"]["status"] == "problem"
    assert str(tmp_path / "apex") in found["apex"]["found"]
    assert "pip uninstall apex" in found["apex"]["advice"]
    code, text = run_doctor(PYTHONPATH=str(tmp_path))
    assert code == 1 and "in the way of training: apex" in text


def test_a_single_module_named_apex_blocks_training_too(tmp_path):
    (tmp_path / "apex.py").write_text("")
    code, found = findings(PYTHONPATH=str(tmp_path))
    assert code == 1 and "apex.py" in found["apex"]["found"]


def test_nvidias_apex_is_welcome(tmp_path):
    for name in ("__init__.py", "optimizers/__init__.py", "multi_tensor_apply/__init__.py"):
        (tmp_path / "apex" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "apex" / name).write_text("")
    code, found = findings(PYTHONPATH=str(tmp_path))
    assert code == 0
    assert (found["apex"]["status"], found["apex"]["found"]) == ("ok", "NVIDIA's Apex")


def test_gpus_without_what_they_need(fake_gpus, tmp_path):
    code, found = findings(PATH=fake_gpus)
    assert code == 0
    assert found["GPU"]["found"].startswith("2 x NVIDIA H100")
    if doctor.torch_cuda() is None:
        assert found["torch"]["status"] == "warn" and "CUDA build" in found["torch"]["advice"]
    for subject in ("Transformer Engine", "flash-attn"):
        if found[subject]["status"] != "ok":  # installed here
            assert found[subject]["status"] == "warn"
            assert "pip install --no-build-isolation" in found[subject]["advice"]
    for module in ("transformer_engine", "flash_attn", "transformer_engine_torch"):
        (tmp_path / "site" / module).mkdir(parents=True)
        (tmp_path / "site" / module / "__init__.py").write_text("")
        _, found = findings(PATH=fake_gpus, PYTHONPATH=str(tmp_path / "site"))
        if module == "flash_attn" and importlib.util.find_spec("transformer_engine_torch") is None:
            assert found["Transformer Engine"]["status"] == "warn"  # its torch part is a package of its own
    assert found["Transformer Engine"]["status"] == found["flash-attn"]["status"] == "ok"


def test_nvidia_smi_that_fails_means_no_gpu(tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    program.chmod(0o755)
    _, found = findings(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert found["GPU"]["found"].startswith("none")


@pytest.mark.parametrize(
    ("text", "cuda"),
    [("cuda: Optional[str] = None\n", None), ("cuda: Optional[str] = '13.0'\n", "13.0"), ("cuda = '12.8'\n", "12.8")],
)
def test_cuda_version_is_read_from_torchs_own_file(tmp_path, monkeypatch, text, cuda):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.13.0'\nhip: Optional[str] = None\n" + text)
    spec = type("Spec", (), {"origin": str(tmp_path / "torch" / "__init__.py")})
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: spec)
    assert doctor.torch_cuda() == cuda


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("0.16.1", "ok"),
        ("0.16.1rc3", "ok"),
        ("0.19.2", "ok"),
        ("0.16.0", "problem"),
        ("0.12.3", "problem"),
        ("0.20.0", "problem"),
        ("1.0", "problem"),
    ],
)
def test_megatron_versions(monkeypatch, version, status):
    with_version(monkeypatch, "megatron-core", version)
    assert doctor.check_megatron().status == status


@pytest.mark.parametrize(
    ("name", "check", "status"),
    [
        ("psutil", doctor.check_psutil, "problem"),
        ("torch", doctor.check_torch, "problem"),
        ("megatron-core", doctor.check_megatron, "problem"),
        ("transformers", doctor.check_transformers, "warn"),
    ],
)
def test_missing_packages(monkeypatch, name, check, status):
    without(monkeypatch, name)
    finding = check()
    assert (finding.status, finding.found) == (status, "not installed")
    assert "pip install" in finding.advice


@pytest.mark.parametrize(("free", "status"), [(0.5e9, "problem"), (5e9, "warn"), (500e9, "ok")])
def test_disk(monkeypatch, free, status):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(1e12, 0, free))
    assert doctor.check_disk().status == status


def test_little_memory(monkeypatch):
    monkeypatch.setattr(doctor, "memory_gb", lambda: 2.0)
    assert doctor.check_processor().status == "warn"


@pytest.mark.parametrize(
    ("flags", "status", "found"),
    [("fpu amx_bf16 avx512_bf16", "ok", "AMX"), ("fpu avx512_bf16", "ok", "AVX-512"), ("fpu avx2", "warn", "not in")],
)
def test_bf16(monkeypatch, flags, status, found):
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: f"flags\t\t: {flags}\n")
    finding = doctor.check_bf16()
    assert finding.status == status and finding.found.startswith(found)


def test_launchers(tmp_path, monkeypatch):
    program = tmp_path / "srun"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "srun yes" in doctor.check_launchers().found
    monkeypatch.setenv("PATH", "")
    assert "srun no" in doctor.check_launchers().found


def test_the_doctor_imports_nothing_heavy():
    code = (
        "import sys; from mecellem.doctor import main; main(['--json']); "
        "sys.exit(bool({'torch', 'transformers', 'megatron', 'transformer_engine'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, stdout=subprocess.DEVNULL).returncode == 0
