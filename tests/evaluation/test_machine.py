from __future__ import annotations

import platform

from evaluation import machine


def test_the_hardware_line_tells_the_memory_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(machine, "memory_gb", lambda: 2.0)
    line = machine.hardware_line("cpu")
    assert line.startswith(machine.cpu_name()) and line.endswith("cores, 2 GB memory")


def test_versions_name_what_is_installed():
    found = machine.versions()
    assert found["python"] == platform.python_version() and {"torch", "transformers", "bm25s"} <= set(found)
