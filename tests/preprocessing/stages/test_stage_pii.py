import time

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.stages.pii import PiiMask, PiiSettings


@pytest.fixture(scope="module")
def pii():
    return PiiMask(PiiSettings())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TC Kimlik No: 10000000146.", "TC Kimlik No: [TCKN]."),
        ("(10000000146)", "([TCKN])"),
        ("IBAN: TR33 0006 1005 1978 6457 8413 26 KARAR", "IBAN: [IBAN] KARAR"),
        ("tr330006100519786457841326", "[IBAN]"),
        ("DE89 3704 0044 0532 0130 00 numaralı", "[IBAN] numaralı"),
        ("GB82 WEST 1234 5698 7654 32 ve", "[IBAN] ve"),
        ("+90 532 123 45 67 aranmış", "[TELEFON] aranmış"),
        ("0532 123 45 67, 0 (312) 123 45 67", "[TELEFON], [TELEFON]"),
        ("(0212) 345 67 89", "[TELEFON]"),
        ("05321234567 nolu hat", "[TELEFON] nolu hat"),
        ("532 123 45 67", "[TELEFON]"),
        ("+49 30 1234567", "[TELEFON]"),
        ("ayse.yilmaz@adalet.gov.tr'ye yazdı", "[E-POSTA]'ye yazdı"),
    ],
)
def test_personal_data_is_masked(pii, text, expected):
    assert pii.mask(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "2019/12345 E., 2020/6789 K. sayılı karar",
        "5237 sayılı Türk Ceza Kanunu, 6100 s. HMK m. 353/1-b",
        "1.234.567,89 TL ve 12.500.000 TL, 532 123 000 TL",
        "01.02.2019 - 31.12.2020, saat 10:30:45",
        "10000000147 ve 12345678901",  # eleven digits without a valid checksum
        "210000000146 100000001461 1-10000000146 2019/10000000146",  # part of a longer number
        "TR33 0006 1005 1978 6457 8413 27",  # wrong by one
        "VKN 1234567890, ada 1234 parsel 56",
        "2001 2002 2003 2004 2005 ve 0.532.123",
        "ISBN 978 605 123 45 67",
        "kullanıcı@ ve @mahkeme ve a@b",
        "ABCD EFGH IJKL MNOP",
    ],
)
def test_numbers_of_other_kinds_stay(pii, text):
    assert pii.mask(text) == (text, {})


@given(st.integers(100_000_000, 999_999_999).filter(lambda nine: len(set(str(nine))) > 1))
def test_an_identity_number_is_masked_with_its_own_checksum_only(nine):
    digits = [int(digit) for digit in str(nine)]
    tenth = (sum(digits[0::2]) * 7 - sum(digits[1::2])) % 10
    eleventh = (sum(digits) + tenth) % 10
    pii = PiiMask(PiiSettings())
    assert pii.mask(f"no {nine}{tenth}{eleventh}")[0] == "no [TCKN]"
    for wrong in range(1, 10):
        assert "TCKN" not in pii.mask(f"no {nine}{tenth}{(eleventh + wrong) % 10}")[0]


@given(st.integers(0, 10**22 - 1))
def test_a_turkish_iban_is_masked_with_its_own_checksum_only(account):
    check = 98 - int(f"{account:022d}292700") % 97
    pii = PiiMask(PiiSettings())
    assert pii.mask(f"TR{check:02d}{account:022d}")[0] == "[IBAN]"
    assert "IBAN" not in pii.mask(f"TR{check % 97 + 1:02d}{account:022d}")[0]


@given(st.text("0123456789 +-/()@.TRabé\n", max_size=60))
def test_a_masked_text_is_not_masked_again(text):
    pii = PiiMask(PiiSettings())
    once, _ = pii.mask(text)
    assert pii.mask(once) == (once, {})


def test_kinds_can_be_left_out_and_are_counted():
    pii = PiiMask(PiiSettings(email=False))
    text = "a@b.com 10000000146 ve 10000000146"
    assert [doc.text for doc in pii.run(iter([Document(text, "0"), Document("boş", "1")]))] == [
        "a@b.com [TCKN] ve [TCKN]",
        "boş",
    ]
    assert (pii.stats["changed_tckn"].total, pii.stats["changed"].total, pii.stats["total"].total) == (2, 1, 2)


@pytest.mark.parametrize("unit", ["a", "1", "a-", "1 ", "a.", "TR", "A1", "+9", "(0"])
def test_a_long_run_takes_linear_time(pii, unit):
    text = unit * (400_000 // len(unit)) + "@"
    started = time.process_time()
    pii.mask(text)
    assert time.process_time() - started < 5
