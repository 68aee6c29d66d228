"""KeNet, the Turkish WordNet: words, definitions and example sentences from the `nlptoolkit-wordnet` source archive."""

from __future__ import annotations

import tarfile
from pathlib import Path
from xml.etree import ElementTree

from preprocessing.corpus.clean import as_sentence, clean_line
from preprocessing.corpus.document import Document, Extract
from preprocessing.corpus.packages import KENET

_XML = f"nlptoolkit_wordnet-{KENET.version}/WordNet/data/turkish_wordnet.xml"


def extract_kenet(archive: Path) -> Extract:
    """Read the synsets that have a definition. Text: the words, a colon, the definition, then the examples."""
    extract = Extract()
    with tarfile.open(archive) as tar:
        xml = tar.extractfile(_XML)
        assert xml is not None, _XML
        for _, element in ElementTree.iterparse(xml):
            if element.tag == "SYNSET":
                _add_synset(extract, element)
                element.clear()
    extract.documents.sort(key=lambda document: document.id)
    return extract


def _add_synset(extract: Extract, synset: ElementTree.Element) -> None:
    words = _distinct(clean_line(literal.text or "") for literal in synset.iter("LITERAL"))
    definitions = _texts(synset, "DEF")
    examples = _texts(synset, "EXAMPLE")
    if words and words[0].startswith("("):
        # "(özel isim)", "(tarih)": classes for a parser, not words.
        extract.dropped["placeholder instead of a word"] += 1
    elif not words or not definitions:
        extract.dropped["no definition"] += 1
    else:
        title = ", ".join(words)
        sentences = [f"{title}: {'; '.join(definitions)}", *examples]
        extract.documents.append(
            Document(
                id=f"kenet/{synset.findtext('ID')}",
                source=KENET.source,
                licence=KENET.licence,
                title=title,
                text=" ".join(as_sentence(sentence) for sentence in sentences),
                definitions=definitions,
                examples=examples,
            )
        )


def _texts(synset: ElementTree.Element, tag: str) -> tuple[str, ...]:
    """Every text of `tag`; one element holds several, separated by `|`, some of them twice."""
    return _distinct(clean_line(part) for element in synset.iter(tag) for part in (element.text or "").split("|"))


def _distinct(parts: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in parts if part))  # type: ignore[attr-defined]
