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
        ("10000000146-Ahmet, No-10000000146 ve _10000000146_", "[TCKN]-Ahmet, No-[TCKN] ve _[TCKN]_"),
        ("TC10000000146/Ahmet, TCKN10000000146, no10000000146", "TC[TCKN]/Ahmet, TCKN[TCKN], no[TCKN]"),
        ("10000000146-12345678950 ve 100 000 001 46", "[TCKN]-[TCKN] ve [TCKN]"),
        ("1000 0000 146 ve 100\u00a0000\u00a0001\u00a046", "[TCKN] ve [TCKN]"),
        ("T.C. Kimlik No : 1 0 0 0 0 0 0 0 1 4 6\nAdı", "T.C. Kimlik No : [TCKN]\nAdı"),
        ("(312) 417 10 00 ve (312) 4171000", "[TELEFON] ve [TELEFON]"),
        ("905321234567 / 90 532 123 45 67", "[TELEFON] / [TELEFON]"),
        ("0312 417 10 00/1234, 0312 417 10 00-01", "[TELEFON], [TELEFON]"),
        ("tel.0532 123 45 67", "tel.[TELEFON]"),
        ("0850 222 0 123 ve 0532 12 34 567", "[TELEFON] ve [TELEFON]"),
        ("532 123 4567, 532 1234567", "[TELEFON], [TELEFON]"),
        ("çağrı@ornek.com ve ali@örnek.com.tr", "[E-POSTA] ve [E-POSTA]"),
        ("TR33\u00a00006\u00a01005\u00a01978\u00a06457\u00a08413\u00a026", "[IBAN]"),
        ("TR33  0006  1005  1978  6457  8413  26 KARAR", "[IBAN] KARAR"),
        ("TR33 0006 1005\n1978 6457 8413 26\nDE89 3704 0044\n0532 0130 00", "[IBAN]\n[IBAN]"),
        ("IBANTR330006100519786457841326", "IBAN[IBAN]"),
        ("5321234567-10000000146 532 123 45 67-10000000146", "5321234567-10000000146 [TELEFON]-[TCKN]"),
        ("Tel: 312 417 10 00, 312 417 10 01 ve 3124171002", "Tel: [TELEFON], [TELEFON] ve [TELEFON]"),
        ("telefon numarası 312 4171000'dır", "telefon numarası [TELEFON]'dır"),
        ("Faks no. 212 345 67 89 / T: 212 345 67 90", "Faks no. [TELEFON] / T: [TELEFON]"),
        ("İLETİŞİM: 2123456789, SANTRAL 312 417 10 00", "İLETİŞİM: [TELEFON], SANTRAL [TELEFON]"),
        ("cep 5321234567, GSM: 505 123 4567", "cep [TELEFON], GSM: [TELEFON]"),
        ("212 345 67 89 numaralı telefon ve 312 417 10 00 no'lu hat", "[TELEFON] numaralı telefon ve [TELEFON] no'lu hat"),
        ("çağrı merkezi 444 12 34, 444 0 123'ü arayınız", "çağrı merkezi [TELEFON], [TELEFON]'ü arayınız"),
        ("0532 123 45 67 Ada Sokak, 0532 123 45 67\nAdet", "[TELEFON] Ada Sokak, [TELEFON]\nAdet"),
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
        "1000 0000 147, 1 0 0 0 0 0 0 0 1 4 7 ve 1 2 3 4 5 6 7 8 9 10 11 12",
        "210000000146 100000001461 1-10000000146 2019/10000000146",  # part of a longer number
        "TR33 0006 1005 1978 6457 8413 27",  # wrong by one
        "VKN 1234567890, ada 1234 parsel 56",
        "2001 2002 2003 2004 2005 ve 0.532.123",
        "ISBN 978 605 123 45 67",
        "kullanıcı@ ve @mahkeme ve a@b",
        "ABCD EFGH IJKL MNOP",
        "+500 000 000 ve +1 500 000 TL",
        "532 100 20 30 adet, 532 123 45 67 TL, ada 512 123 45 67 parsel",
        "2020/532 123 45 67 ve 2010/0212 345 67 89",
        "0.5321234567, 0212 2019/1234567",
        "312 417 10 00 lira",
        "0 505 000 00 00 TL ve 0 312 417 10 00 ₺",
        "(212) 345 67 89 adet, (312) 417 10 00 m² ve 0 216 345 67 89 kişi",
        "telefonla 212 345 67 89 TL ödendi, cep 532 123 45 67 lira",
        "444 1 234 TL, 444 12 34 ve 4440123",
        "ISBN 978-975-08-0231-2, 978-975-08-0231-2, ISBN 975 08 0231 2, ISBN: 0-532-12345-6",
        "telefon ISBN 978 0 312 417 10 00, ISBN-13: 312 417 10 00",
        "212 345 67 89 ve 312 417 10 00",  # nothing says that they are any
        "tel: 219 345 67 89, tel 999 417 10 00",  # no area code
        "otel 312 417 10 00 ve santralin uzun zamandır kapalı olan deposunda 312 417 10 00",
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


SPACE = st.sampled_from(["", " ", "\u00a0", "  ", "-", "."])
MOBILE = st.tuples(st.sampled_from("34"), st.integers(0, 9), st.integers(0, 9_999_999)).map(
    lambda parts: f"5{parts[0]}{parts[1]}{parts[2]:07d}"
)


@given(MOBILE, st.sampled_from(["0", "+90", "0090", "90"]), SPACE, st.sampled_from([(3, 5), (3,), (2, 4), (3, 4)]))
def test_a_mobile_number_is_masked_in_every_grouping(number, prefix, space, cuts):
    area, rest = number[:3], number[3:]
    groups = [rest[start:end] for start, end in zip((0, *cuts), (*cuts, None), strict=True)]
    written = prefix + ("" if prefix == "90" else space) + area + space + space.join(groups)
    if prefix == "90" and (space not in ("", " ") or cuts in ((2, 4), (3, 4))):
        return  # without a sign before it, 90 may be a number of its own
    if prefix == "0" and space == ".":
        return  # 0.532 is a decimal number
    assert PiiMask(PiiSettings()).mask(f"Tel: {written}, ev") == ("Tel: [TELEFON], ev", {"phone": 1})


@given(st.sampled_from(["", " ", "\u00a0", "  ", "-", "\n", " \n"]), st.integers(0, 10**22 - 1))
def test_the_groups_of_an_iban_may_be_parted_by_any_space(space, account):
    check = 98 - int(f"{account:022d}292700") % 97
    iban = f"TR{check:02d}{account:022d}"
    written = space.join(iban[start : start + 4] for start in range(0, 26, 4))
    assert PiiMask(PiiSettings()).mask(f"hesap {written} (TL)")[0] == "hesap [IBAN] (TL)"


@given(
    st.text("abcçğışzABÇİ", min_size=1, max_size=12), st.text("abcçğış-", max_size=8), st.sampled_from(["tr", "com.tr", "net"])
)
def test_an_address_may_have_letters_of_every_alphabet(name, host, top):
    assert PiiMask(PiiSettings()).mask(f"({name}@a{host}z.{top})")[0] == "([E-POSTA])"


WORDS = ("Tel:", "faks", "ve", "TL", "[TELEFON]", "numaralı telefon", "ISBN 978", "a@b.com", " ", ", ", "-", "\n")
NUMBERS = ("312 417 10 00", "3124171001", "444 0 123", "444 12 34", "0532 123 45 67", "5321234567", "10000000146")
PIECES = st.lists(st.sampled_from(WORDS + NUMBERS), max_size=25).map("".join)


@given(st.one_of(st.text("0123456789 +-/()@.TRabé\n", max_size=60), PIECES))
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


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "1",
        "a-",
        "1 ",
        "a.",
        "TR",
        "A1",
        "+9",
        "(0",
        "444 0 12",
        "312 417 10 00 x",
        "tel ",
        "tel:312 417 10 00,",
        "ISBN ",
        "TR1",
        "TR11 ",
        "53",
        "TR \n1",
        "é.",
    ],
)
def test_a_long_run_takes_linear_time(pii, unit):
    text = unit * (400_000 // len(unit)) + "@"
    started = time.process_time()
    pii.mask(text)
    assert time.process_time() - started < 5


def test_area_codes_are_those_of_the_numbering_plan():
    pii = PiiMask(PiiSettings())
    masked = [code for code in range(200, 500) if pii.mask(f"tel {code} 345 67 89")[1]]
    assert len(masked) == 83
    assert {212, 216, 232, 312, 370, 392, 442, 488} <= set(masked)
    assert not {214, 250, 300, 314, 394, 418, 440, 444, 480, 499}.intersection(masked)
