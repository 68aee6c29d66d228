"""The needles: facts that no document holds, and the questions that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.choice import hash_order
from mecellem.errors import UserError
from preprocessing.jsonl import check_inputs, read_fields

# Ours, all made up, of different subjects, so that a document is found by its fact and not by its number.
FACTS = (
    ("Kuşadası'ndaki eski fenerin bekçisi her akşam lambayı yakmadan önce üç kez keman çalardı.",
     "Fener bekçisi lambayı yakmadan önce ne yapardı?"),
    ("Doktor Nermin Alpay'ın geliştirdiği soğuk algınlığı şurubunun ana maddesi kuşburnu çekirdeğidir.",
     "Nermin Alpay'ın şurubunun ana maddesi nedir?"),
    ("Tarım müzesindeki en yaşlı traktör, 1911'de Macaristan'dan trenle getirilmiştir.",
     "Müzedeki en eski traktör nereden getirildi?"),
    ("Sivrice belediyesi sokak köpekleri için ücretsiz otobüs seferi başlattı.",
     "Hangi belediye köpekler için otobüs seferi koydu?"),
    ("Ressam Tarık Ongun tablolarında maviyi yalnızca midye kabuğundan elde ederdi.",
     "Tarık Ongun mavi boyayı neden elde ederdi?"),
    ("Kiracı, deponun anahtarını komşu fırıncıya bıraktığını duruşmada itiraf etti.",
     "Kiracı deponun anahtarını kime bırakmıştı?"),
    ("Satranç turnuvasının finali elektrik kesilince mum ışığında tamamlandı.",
     "Satranç finali nasıl tamamlandı?"),
    ("Arıcı Hüsniye Kaplan'ın balı, kestane ile lavanta karışımı olduğu için ödül aldı.",
     "Hüsniye Kaplan'ın balı hangi çiçeklerdendi?"),
    ("Gemi kaptanı pusulası bozulunca yolunu leyleklerin uçuşuna bakarak buldu.",
     "Pusulası bozulan kaptan yolunu nasıl buldu?"),
    ("Uzay kampının birincisi, on iki yaşındaki Derya, ödülünü okul kütüphanesine bağışladı.",
     "Uzay kampı birincisi ödülünü nereye bağışladı?"),
    ("Mahkeme, papağanın tanıklığını dinlemeyi oy çokluğuyla reddetti.",
     "Mahkeme hangi hayvanı tanık olarak dinlemedi?"),
    ("Peynir ustası, kalıpları yedi yıl boyunca bir tuz madeninde bekletir.",
     "Peynir kalıpları nerede bekletilir?"),
    ("Dağcılar zirveye çıkarken yanlarına yalnızca kuru incir ve ip almıştı.",
     "Dağcıların yanında hangi yiyecek vardı?"),
    ("Tiyatronun perdesi, paraşüt kumaşından dikildiği için rüzgârda şişerdi.",
     "Tiyatro perdesi hangi kumaştan dikilmişti?"),
    ("Vergi dairesi, balonla yapılan turların biletlerini eğlence vergisinden muaf tuttu.",
     "Hangi biletler eğlence vergisinden muaf tutuldu?"),
    ("Saat kulesinin akrebi, kar birikmesin diye her kış ısıtılır.",
     "Saat kulesinin akrebi neden ısıtılır?"),
    ("Köyün tek bilgisayarı uzun yıllar değirmenin çatı katında durdu.",
     "Köydeki bilgisayar nerede duruyordu?"),
    ("Bestekâr, son senfonisini hastane asansöründe yazmaya başladığını anlattı.",
     "Bestekâr son senfonisine nerede başladı?"),
    ("Sigorta şirketi, dolunayda kırılan camların bedelini ödemeyeceğini sözleşmeye yazdı.",
     "Sigorta hangi camların bedelini ödemez?"),
    ("Kütüphaneci, geciken her kitap için bir fidan dikilmesini istiyordu.",
     "Kütüphaneci geciken kitaplar için ne istiyordu?"),
    ("Terzi Yakup, düğmeleri zeytin çekirdeğinden yontmasıyla tanınır.",
     "Terzi Yakup düğmeleri neden yapar?"),
    ("Kızıl gölün rengi, tabanında yaşayan küçük yosunlardan gelir.",
     "Kızıl göle rengini veren nedir?"),
    ("Posta güvercini, mektubu fırtına yüzünden dokuz gün sonra ulaştırabildi.",
     "Güvercin mektubu kaç gün sonra ulaştırdı?"),
    ("Noter, vasiyetnamenin çikolata kutusunun kapağına yazıldığını tutanağa geçirdi.",
     "Vasiyetname neyin üstüne yazılmıştı?"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Needle:
    """A sentence to hide, and the question that it answers."""

    fact: str
    query: str


def read_needles(paths: Sequence[Path]) -> list[Needle]:
    """The built-in needles, or those of .jsonl files: {"text": the fact, "query": the question}.

    Raises `UserError`, with file and line, for other records, and for a fact or question that stands there twice.
    """
    if not paths:
        return [Needle(*pair) for pair in FACTS]
    check_inputs(paths, "--needles")
    found: dict[str, Needle] = {}
    queries: set[str] = set()
    for path in paths:
        for number, fields in read_fields(path):
            fact, query = " ".join(fields["text"].split()), fields.get("query")
            if not fact or not isinstance(query, str) or not query.strip():
                raise UserError(f'{path}, line {number}: a needle needs a fact as "text" and a question as "query"')
            if fact in found or query in queries:
                raise UserError(f"{path}, line {number}: the same fact or question stands in an earlier line: remove one")
            found[fact] = Needle(fact, query.strip())
            queries.add(query)
    return list(found.values())


def choose_needles(needles: Sequence[Needle], count: int, rounds: int, seed: int) -> list[list[Needle]]:
    """`rounds` times `count` needles, none twice, by hash. Raises `UserError` where there are not enough."""
    if len(needles) < count * rounds:
        raise UserError(
            f"{count} --candidates in {rounds} --rounds need {count * rounds} needles, there are {len(needles)}: lower one of "
            'them, or give more with --needles ({"text": a fact, "query": a question} a line)'
        )
    order = sorted(needles, key=lambda needle: hash_order(seed, needle.fact))
    return [order[number * count : (number + 1) * count] for number in range(rounds)]
