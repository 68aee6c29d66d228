"""`mecellem report`: one self-contained HTML page about a run, and every figure of it as JSON."""

from evaluation.report.command import main, report_run

__all__ = ["main", "report_run"]
