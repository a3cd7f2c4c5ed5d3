"""Made-up people for benchmarks and tests: names in several scripts, the same for the same seed, unique by number.

They look like what an application has: a mixed-case email, a username, a name in its own script, a country, a
language, maybe a phone number, a few attributes. About 250 bytes each as JSON.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

# country, language, dialling code, given names, family names: each with its spelling in ASCII
_PLACES: Final = (
    ("DE", "de-DE", "49", "Jürgen/juergen Anna/anna Lukas/lukas Zoë/zoe", "Müller/mueller Schäfer/schaefer Weiß/weiss"),
    ("FR", "fr-FR", "33", "Chloé/chloe Rémi/remi Élodie/elodie", "Lefèvre/lefevre Moreau/moreau Gauthier/gauthier"),
    ("PL", "pl-PL", "48", "Łukasz/lukasz Michał/michal", "Wiśniewski/wisniewski Wójcik/wojcik Kamińska/kaminska"),
    ("GR", "el-GR", "30", "Ελένη/eleni Γιώργος/giorgos Μαρία/maria", "Παπαδόπουλος/papadopoulos Νικολαΐδης/nikolaidis"),
    ("RU", "ru-RU", "7", "Анна/anna Дмитрий/dmitri Ольга/olga", "Иванова/ivanova Смирнов/smirnov Кузнецов/kuznetsov"),
    ("JP", "ja-JP", "81", "さくら/sakura 健太/kenta 美咲/misaki", "佐藤/sato 鈴木/suzuki 高橋/takahashi"),
    ("CN", "zh-Hans-CN", "86", "伟/wei 芳/fang 秀英/xiuying", "王/wang 李/li 张/zhang"),
    ("KR", "ko-KR", "82", "민준/minjun 서연/seoyeon 지우/jiwoo", "김/kim 이/lee 박/park"),
    ("EG", "ar-EG", "20", "محمد/mohamed فاطمة/fatima يوسف/youssef", "حسن/hassan إبراهيم/ibrahim"),
    ("IL", "he-IL", "972", "נועה/noa דוד/david תמר/tamar", "כהן/cohen לוי/levi"),
    ("IN", "hi-IN", "91", "आरव/aarav अनन्या/ananya विवान/vivaan", "शर्मा/sharma वर्मा/verma गुप्ता/gupta"),
    ("TH", "th-TH", "66", "สมชาย/somchai มาลี/malee", "แสงทอง/saengthong ศรีสุข/srisuk"),
    ("GE", "ka-GE", "995", "ნინო/nino გიორგი/giorgi", "ბერიძე/beridze კაპანაძე/kapanadze"),
    ("US", "en-US", "1", "Emma/emma Liam/liam Olivia/olivia Noah/noah", "Smith/smith O'Brien/obrien Garcia/garcia"),
    ("BR", "pt-BR", "55", "João/joao Conceição/conceicao Luís/luis", "Araújo/araujo Gonçalves/goncalves Silva/silva"),
    ("TR", "tr-TR", "90", "Çağla/cagla İbrahim/ibrahim Gül/gul", "Yılmaz/yilmaz Şahin/sahin Öztürk/ozturk"),
)  # fmt: skip
_DOMAINS: Final = (
    "example.com",
    "example.org",
    "mail.example.net",
    "post.example",
    "users.example.co",
    "bücher.example",
)
_PLANS: Final = ("free", "free", "free", "plus", "team")


def _spellings(text: str) -> list[tuple[str, str]]:
    return [(own, ascii_) for own, _, ascii_ in (pair.partition("/") for pair in text.split())]


_PARSED: Final = [
    (country, locale, code, _spellings(given), _spellings(family)) for country, locale, code, given, family in _PLACES
]


def people(count: int, *, seed: int = 1, first: int = 0) -> Iterator[dict[str, Any]]:
    """So many people, numbered from `first`; two people with different numbers share no login name."""
    choose = random.Random(f"{seed}/{first}").choice  # noqa: S311  made-up data, not secrets
    for number in range(first, first + count):
        country, locale, code, givens, families = choose(_PARSED)
        given, given_ascii = choose(givens)
        family, family_ascii = choose(families)
        local = (
            f"{given_ascii.title()}.{family_ascii}+{number}"
            if number % 8 == 0
            else f"{given_ascii}.{family_ascii}{number}"
        )
        yield {
            "email": f"{local}@{choose(_DOMAINS)}",
            "username": f"{given_ascii}_{family_ascii[:3]}{number}",
            "name": {"given": given, "family": family},
            "display_name": f"{given} {family}",
            "country": country,
            "locale": locale,
            "phone": f"+{code}{100_000_000 + number}" if number % 3 == 0 else None,
            "attributes": {"plan": choose(_PLANS), "newsletter": number % 2 == 0},
        }


def write_people(path: Path, count: int, *, seed: int = 1) -> None:
    """Write so many people as NDJSON."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{encode(person)}\n" for person in people(count, seed=seed))
