"""Function words by language: words that cannot end a phrase, and words that begin an optional part of a sentence.

This is data for `phrases`. In a language without an entry, texts are cut only at punctuation.
"""

# ruff: noqa: RUF001  words in many scripts

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


def words(written: str) -> frozenset[str]:
    """Split a text at spaces."""
    return frozenset(written.split())


@dataclass(frozen=True)
class Words:
    """The function words of one language.

    - `never`: cannot end a phrase. `rarely`: can end one that a person wrote ("what it is made of"), but not one that was cut.
    - `loose`: begins a clause that may be left out. `after_comma`: does so only after a comma. `joining`: does so only after a
      comma and before one of `subjects`.
    - `leaning`: a clause that begins with it makes no sense alone.
    - `negations`: a clause with one of these may say the opposite without the rest.
    - `narrowing`: the words after it are part of the clause.
    """

    never: frozenset[str]
    rarely: frozenset[str]
    loose: tuple[str, ...] = ()
    after_comma: tuple[str, ...] = ()
    joining: tuple[str, ...] = ()
    subjects: frozenset[str] = frozenset()
    leaning: frozenset[str] = frozenset()
    negations: frozenset[str] = frozenset()
    narrowing: frozenset[str] = frozenset()


_ENGLISH = Words(
    never=words("a an the my your our their its whose every and or nor but while because although whereas than very"),
    rarely=words(
        "about across after against among around as at before behind below beneath beside between beyond by despite during "
        "for from in inside into of off on onto out over per since through to toward towards under until unlike upon via "
        "with within without up am is are was were be been being has have had do does did will would can could shall should "
        "may might must this that these those some any each no another such his her which who whom if when where how so not "
        "only even more most less one's like"
    ),
    loose=("while", "because", "although", "whereas", "even though"),
    after_comma=("though", "which", "so that", "since", "as if", "except that"),
    joining=("and", "but", "so", "yet", "or"),
    subjects=words(
        "i you he she it we they this that these those the a an its their his her our there one two three some many most "
        "each every both nobody everybody nothing all no"
    ),
    leaning=words("when while if because although though since as after before once until unless whenever whereas whether even"),
    negations=words("not no never nobody nothing none neither cannot without hardly"),
    narrowing=words("only just simply partly mainly largely mostly even maybe perhaps probably precisely exactly not and but or"),
)
_GERMAN = Words(
    never=words(
        "der die das ein eine einen einem einer eines und oder weil dass während obwohl sondern mein dein unser zum zur im "
        "ins beim vom jeder jede jedes"
    ),
    rarely=words(
        "den dem des in an auf mit von zu bei für über unter vor nach aus durch gegen ohne um zwischen ist sind war waren "
        "hat haben wird werden kann können muss müssen soll will dieser diese dieses kein keine nicht sehr aber denn als "
        "wenn ob wie seine ihre sein ihr am"
    ),
    after_comma=("weil", "während", "obwohl", "denn", "wobei", "sodass", "wodurch", "weshalb", "auch wenn"),
    joining=("und", "aber", "doch"),
    subjects=words("ich du er sie es wir ihr man der die das ein eine dieser diese dieses sein ihr seine ihre dort dann"),
    leaning=words("wenn weil während obwohl da als nachdem bevor sobald solange falls dass ob"),
    negations=words("nicht kein keine keiner keinen nie niemals niemand nichts weder"),
)
_FRENCH = Words(
    never=words("le la les du des de et ou mais que à au aux ni mes tes nos vos ces cette notre votre chaque"),
    rarely=words(
        "un une l d en sur sous par avec sans entre vers dans pour chez est sont était étaient a ont sera cet leur leurs sa "
        "ses ma ta ne très plus car si quand comme dont qui où"
    ),
    loose=("parce que", "parce qu'", "tandis que", "tandis qu'", "alors que", "alors qu'", "pendant que", "pendant qu'", "puisque"),
    after_comma=("car", "bien que", "même si", "ce qui", "de sorte que"),
    joining=("et", "mais", "donc"),
    subjects=words("je tu il elle on nous vous ils elles le la les ce cela ça un une son sa ses leur leurs cette ces"),
    leaning=words("quand lorsque si comme parce puisque tandis bien même dès après avant pendant"),
    negations=words("ne n pas jamais rien personne aucun aucune ni"),
)
_SPANISH = Words(
    never=words("el los las de del al y e o u pero aunque que con en a su sus mi mis tu tus cada"),
    rarely=words(
        "la un una unos unas por para sin sobre entre desde hasta es son era está están fue ha han será este esta estos "
        "estas no muy más porque mientras si cuando como donde lo"
    ),
    loose=("porque", "mientras", "aunque", "ya que"),
    joining=("y", "pero", "así que"),
    subjects=words("yo tú él ella ello nosotros ellos ellas el la los las un una su sus este esta esto eso cada"),
    leaning=words("cuando si como porque mientras aunque antes después desde hasta ya"),
    negations=words("no nunca nadie nada ni ningún ninguna jamás sin"),
)
_PORTUGUESE = Words(
    never=words("o os de do da dos das em no na ao à aos às e ou mas que com pelo pela seu seus sua suas cada"),
    rarely=words(
        "a as um uma por para sem sobre entre desde até é são era está estão foi há tem este esta isso não muito mais porque "
        "enquanto se quando como onde nos nas"
    ),
    loose=("porque", "enquanto", "embora", "já que"),
    after_comma=("pois",),
    joining=("e", "mas"),
    subjects=words("eu tu ele ela nós eles elas o a os as um uma seu sua isto isso este esta cada"),
    leaning=words("quando se como porque enquanto embora antes depois desde até já"),
    negations=words("não nunca ninguém nada nem nenhum nenhuma jamais sem"),
)
_ITALIAN = Words(
    never=words(
        "il lo gli le di del dello della dei degli delle e ed o ma che al alla ai nel nella nei con dal dalla sul sulla ogni"
    ),
    rarely=words(
        "la i un uno una a in da per su tra fra senza è sono era ha hanno fu sarà questo questa non molto più mentre se "
        "quando come dove mio tuo suo sua suoi"
    ),
    loose=("mentre", "poiché", "anche se"),
    after_comma=("perché", "sebbene"),
    joining=("e", "ma"),
    subjects=words("io tu lui lei noi loro il lo la i gli le un una questo questa ogni"),
    leaning=words("quando se mentre poiché siccome perché dopo prima anche sebbene"),
    negations=words("non mai nessuno nessuna niente nulla né senza"),
)
_DUTCH = Words(
    never=words("de het een en of maar omdat terwijl hoewel mijn elke ieder iedere"),
    rarely=words(
        "in op aan met van voor bij uit over onder door tegen zonder om tussen naar is zijn was waren heeft hebben wordt "
        "worden kan moet zal deze die dat dit geen niet zeer als want jouw onze haar hun te"
    ),
    loose=("omdat", "terwijl", "hoewel"),
    after_comma=("want", "waardoor", "zodat"),
    joining=("en", "maar"),
    subjects=words("ik je jij hij zij ze het we wij de een dit dat deze die hun zijn haar er"),
    leaning=words("als wanneer omdat terwijl hoewel toen nadat voordat zodra"),
    negations=words("niet geen nooit niemand niets noch zonder"),
)
_POLISH = Words(
    never=words("i oraz lub albo ale że w we z ze do dla od przez ponieważ każdy każda każde"),
    rarely=words(
        "na po o u pod nad przed za jest są był była było były ma mają będzie ten ta to nie bardzo bo a jeśli gdy kiedy jak "
        "jego jej ich"
    ),
    after_comma=("ponieważ", "bo", "gdyż", "chociaż", "podczas gdy"),
    leaning=words("gdy kiedy jeśli jeżeli chociaż ponieważ zanim odkąd"),
    negations=words("nie nigdy nikt nic ani bez"),
)
_RUSSIAN = Words(
    never=words("и или но в во с со к ко у о об от для из без при потому каждый каждая"),
    rarely=words(
        "а на по за до под над перед через между был была было были есть будет этот эта это не очень если когда как чтобы его её их"
    ),
    after_comma=("потому что", "так как", "хотя", "поскольку", "в то время как"),
    leaning=words("когда если хотя пока потому поскольку чтобы прежде"),
    negations=words("не нет никогда никто ничто ни без"),
)
_SWEDISH = Words(
    never=words("och eller men att eftersom medan min din varje"),
    rarely=words(
        "en ett den det de i på av med för till från om under över är var har hade blir ska kan måste inte mycket som när"
    ),
    loose=("eftersom", "medan"),
    after_comma=("fast", "trots att"),
    leaning=words("när om eftersom medan innan sedan trots"),
    negations=words("inte aldrig ingen inget inga utan"),
)
_TURKISH = Words(
    never=words("ve veya ya fakat çünkü her"),
    rarely=words("ama bir bu şu o en çok daha gibi için ile eğer"),
    after_comma=("çünkü", "ama", "fakat"),
    leaning=words("eğer çünkü"),
)

WORDS: Mapping[str, Words] = MappingProxyType(
    {
        "en": _ENGLISH,
        "de": _GERMAN,
        "fr": _FRENCH,
        "es": _SPANISH,
        "pt": _PORTUGUESE,
        "it": _ITALIAN,
        "nl": _DUTCH,
        "pl": _POLISH,
        "ru": _RUSSIAN,
        "sv": _SWEDISH,
        "tr": _TURKISH,
    }
)
