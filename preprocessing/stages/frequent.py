"""Frequent words that other dots would make into ones which nobody writes: ilgili, though a lexicon knows "ılgılı" too.

Of the training split of the sample corpus (`mecellem corpus fetch --sample --libreoffice no`: speeches, dictionary entries
and web sentences), what stands there other than in capitals: three letters or more, at least `FEWEST` times, at least `OFTENER`
times as often as with all other dots together, and with another dotting that akana knows as well, for of other words the
lexicon decides alone. `tests/preprocessing/stages/test_stage_dotting.py` counts them again.
"""

FEWEST = 20
OFTENER = 50
_WORDS = """
adamı adamın adım adını aklın aklını aksi akıllı akımı akımını akımının akın akıntı akışını aldı aldım alinizin altı altın
altını alıcı alın alınan alındı alınmış alışmış antik arazi ardı artık asit askı aslında asılı atlantik atılan atın aydın
aydınlık aynı ayrı ayrıca ayrıcalık ayrım ayının azim aziz aşkı aşkın aşırı bakım bakımı balığı basit baskı baskın basım basın
basıncı batı bektaşi benim bin bina biz bizi bizim bırak bırakma bırakmış bıraktı caiz canını cila cin city cıvıl dalı dağın
didik diken dikilen din dini dinin diplomatik emin faiz fakir farkı filan fiyatı fiş fransız fındık gazın girdi girmiş giyim
giymiş gri hacı hadi hain haiz hakiki hakim hakkı hakkını haklı haksız halin halini halkı halkın halkının hangi hanım harbi
hattı havai hayatın hayatını hayatının haydi hayli hayvanın hazin hazır hazırlık hesabını idare idaresi idi idim ifa ihsan
ihya iken iki ikide ikili ikinci ikisi ikiye iklim iktisadi ilahi ilan ilgi ilgili ilgisi ilgisini ilgisiz ilgiyi ilişki
ilişkili ilişkin ilişkisi ilişkisini ilişkiyi ilk ilmi iman imiş insan insanın ipi iplik ipliği iran iri isal isim iskan islam
istanbul istila italya italyan iyi iyice iyidir iyilik iyiye içi içim için içindir içini işi işini işte işten kafi kalbi
kalbin kalbini kalıcı kalın karın karısı kasım katkı katlı katılmış kaydı kilim kilit kim kimi kimin kira kirli kitabın kişi
kişinin kritik kıran kırk kırmızı kırıcı kırık kırılmış kırım kısa kısaca kısmını kısmının kıta kışın lakin lastik latin layık
maddi malın malını mani menafi mesai misak muvaffakiyetle nadir namı nazım nazırı nisan osmanlı otomatik padişahın parti
partinin pis pratik rakı razı rica rıza sabır sadık salim salkım sami samimi sanayi sanki sarılı sarısı satıcı satın satır
sivas siyasi siz sizin sık sıkı sıkıntı sıra sırada sıradan sıralanmış sıralarda sırası sırasına sırasında sıraya sırtı tabii
tabiidir takdim takdir taksim takım takımı takımın takımının talim tanrı tanzim tanınmış tarzı tarım tasdik tatil tatmin tıpkı
vardı vasıl vatanın yabani yakıcı yakın yakınlık yanına yardım yarı yarım yarısı yatkın yirmi yiğit yılı zabitan zamanı
zamanın zihin zihni zira çirkin çivit çıkan çıkıntı çıtır ırk ıssız ısı şarkının şimdi
"""
FREQUENT = frozenset(_WORDS.split())
