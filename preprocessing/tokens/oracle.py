"""Hugging Face tokenizers as the judge of gigatoken: the same documents, encoded by both, must give the same ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preprocessing.tokens.documents import Documents, documents_of
from preprocessing.tokens.engines import Engine, HuggingFaceEngine

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ONE_IN = 512  # documents of a file that are compared
_ALWAYS = 16  # of a file's first documents
_LONGEST = 1 << 14  # bytes of one document that are compared
_WHOLE = 1 << 19  # bytes of longer documents that are compared from end to end in a run, the first that fit
_EXCERPT = 40  # characters of a document that the manifest may quote

# Where tokenizers of the same name have been seen, or may be feared, to differ: normalisation, categories of
# characters, spaces, what Unicode added last, and where words end.
_ADVERSARIAL = (
    "",
    " ",
    "  \n\t\r\n  ",
    "\n\n\n",
    "a",
    "Yargıtay'ın, YARGITAY\u2019IN; İSTANBUL'da ıslık, Iğdır'dan ığdır'a.",
    "İ I ı i İİ II ıı ii i\u0307 I\u0307 ı\u0307",
    "Tu\u0308rkc\u0327e ve s\u0327imdi c\u0327og\u0306u ayr\u0131k: o\u0308g\u0306le, I\u0307zmir",
    "Türkçe ve şimdi çoğu bitişik: öğle, İzmir, âlâ, îmân, hûr",
    "a\u0301\u0302\u0303\u0304\u0305 e\u20dd x\u0338 \u0301başta",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f1f9\U0001f1f7 \U0001f44d\U0001f3fd \u263a\ufe0f \u2764\ufe0f\u200d\U0001f525",
    "sıfır\u200bgenişlik\u200cbirleş\u200dtirme\ufeffbom\u2060söz\u00adcük",
    "\u202asağ\u202c\u202eters\u202c \u2066iz\u2069",
    "\x00a\x00\x00b\x01\x1f\x7f\x80\x9f",
    "a\u00a0b\u1680c\u2000d\u2003e\u2007f\u2009g\u202fh\u205fi\u3000j\u0085k\u2028l\u2029m\x0bn\x0co\x1cp",
    " \u00a0 \u3000 \u2003x  y   z    ",
    "satır\rsonu\r\nve\n\rtersi\n \n  \n\t\n",
    "\t\tdef f(x):\n\t    return {'a': [1, 2.5e-3], \"b\": x**2}\n",
    "aа ΑA Кириллица ελληνικά עברית العربية فارسی हिन्दी ไทย 中文汉字 日本語カナ 한국어 ქართული Հայերեն አማርኛ",
    "Türkçe中文العربية123abcİğ",
    "0 12 123 1234 12345 1234567890 1.234.567,89 ½ ² ① Ⅷ ٣٤٥ १२३ 𝟘𝟙𝟚 \U0001fbf0",
    "don't DON'T I'M we'll THEY'RE it's 'S 's '\u0073 ‘s ’s ſ 'ſ K k \u212a",
    "!!! ??? ... --- ___ === ### $$$ %%% &&& *** /// \\\\\\ |||",
    "https://www.resmigazete.gov.tr/eskiler/2011/02/20110204-1.htm?a=b&c=%C4%B0#m_3 ad.soyad@ornek.com.tr",
    "ﬁ ﬂ ﷺ Å \u212b Ω \u2126 Ǆ ß ẞ ﬀ ㎏ ㍿ ｆｕｌｌ ﾊﾝｶｸ \uac00\u1100\u1161",
    "\U00010400\U0001d49c\U0001f9ff\U0002070e\U000e0041\U0010ffff \ue000 \ufffd \ufffe",
    "\u1c89\u1c8a \ua7cb\ua7da\ua7dc \U0001c8a0 \U00010d40\U00010d50 \U00016d40 \U0001fae9 \U0001fadc \U0001cc00 \U0001e5d0",
    "\u0897 \u2ffc \u31ef \U00011bc0 \U00016100 \U0001f6d8 \U00010940 \ua7ce \U00011db0 \U0001fa8a \U0003347f",
    "muvaffakiyetsizleştiricileştiriveremeyebileceklerimizdenmişsinizcesine " * 3,
    "a" * 3000,
    "ş" * 1500,
    "ab" * 1500,
    " " * 700 + "x",
    "\n" * 300,
    "-" * 999,
    "9" * 1001,
    "e" + "\u0301" * 300,
    "\U0001f600" * 300,
    "ÇĞÖŞÜçğöşü" * 100,
)
_WRITTEN = ("[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "<unk>", "<s>", "</s>", "<pad>", "<mask>", "<|endoftext|>")
_CHAT = ("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<bos>", "<eos>", "<think>", "</think>")


def adversarial_documents(added_tokens: Sequence[str]) -> list[str]:
    """The fixed list, and every added token of the tokenizer as a text may write it."""
    written = dict.fromkeys((*_WRITTEN, *_CHAT, *added_tokens[:256]))
    around = (
        form for token in written for form in (token, f"söz {token} söz", f"x{token}y{token}", f"  {token}\n {token[:-1]}")
    )
    return [*_ADVERSARIAL, *around]


class Oracle:
    """Compares what an engine made of documents with what tokenizers makes of them.

    `compared` is how many documents of the corpus were compared so far, `adversarial` how many of the fixed list, and
    `difference` describes the first one that differs, or is None.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._judge = HuggingFaceEngine(tokenizer)
        self._added = [str(token.content) for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
        self.compared = 0
        self.adversarial = 0
        self.difference: str | None = None
        self._whole_left = _WHOLE

    def check_adversarial(self, engine: Engine) -> None:
        """Compare the fixed list."""
        texts = adversarial_documents(self._added)
        self._compare_texts(engine, texts, "adversarial document")
        self.adversarial += len(texts)

    def check_sample(
        self, engine: Engine, documents: Documents, ids: NDArray[np.unsignedinteger], lengths: NDArray[np.int64], first: int
    ) -> None:
        """Compare some of `documents` with their `ids` and `lengths` as `engine` made them.

        `first` is the number of the first of them in its file: which ones are compared depends on their numbers there
        alone. Of a long one, but for the first few, only the beginning is compared, which `engine` encodes once more.
        """
        chosen = np.flatnonzero(_in_sample(np.arange(first, first + len(documents), dtype=np.uint64)))
        sizes = np.diff(documents.offsets)[chosen]
        long = sizes > _LONGEST
        for place in np.flatnonzero(long).tolist():
            if sizes[place] <= self._whole_left:
                self._whole_left -= int(sizes[place])
                long[place] = False
        beginnings = [documents.data[start : start + _LONGEST] for start in documents.offsets[chosen[long]].tolist()]
        texts = [part.tobytes().decode(errors="ignore") for part in beginnings]  # the cut may fall inside a character
        if texts:
            self._compare_texts(engine, texts, "the beginning of a long document,")
        ends = np.cumsum(lengths)
        whole = chosen[~long]
        texts = [documents.text(number) for number in whole.tolist()]
        made = (ids[ends[number] - lengths[number] : ends[number]] for number in whole.tolist())
        self._compare(texts, made, "document")
        self.compared += chosen.size

    def _compare_texts(self, engine: Engine, texts: Sequence[str], what: str) -> None:
        self._compare(texts, _split(*engine.encode(documents_of(texts))), what)

    def _compare(self, texts: Sequence[str], made: Iterator[NDArray[np.unsignedinteger]], what: str) -> None:
        right = _split(*self._judge.encode(documents_of(texts)))
        for text, ours, theirs in zip(texts, made, right, strict=True):
            if self.difference is None and not np.array_equal(ours, theirs):
                self.difference = _describe(text, ours, theirs, what)


def _in_sample(numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which documents of a file are compared: multiplying by 2^64 / golden ratio spreads the numbers evenly."""
    return (numbers < _ALWAYS) | (numbers * np.uint64(0x9E3779B97F4A7C15) < np.uint64(2**64 // _ONE_IN))


def _split(ids: NDArray[np.unsignedinteger], lengths: NDArray[np.int64]) -> Iterator[NDArray[np.unsignedinteger]]:
    start = 0
    for length in lengths.tolist():
        yield ids[start : start + length]
        start += length


def _describe(text: str, ours: NDArray[np.unsignedinteger], right: NDArray[np.unsignedinteger], what: str) -> str:
    common = min(ours.size, right.size)
    same = ours[:common] == right[:common]
    place = common if same.all() else int(np.argmin(same))
    around = slice(max(0, place - 1), place + 4)
    excerpt = text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}..."
    return (
        f"{what} {excerpt!a}: token {place} and those around it are {ours[around].tolist()} by gigatoken, "
        f"{right[around].tolist()} by tokenizers"
    )
