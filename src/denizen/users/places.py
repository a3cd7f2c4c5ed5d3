"""Countries, languages and time zones: the codes that a profile may hold, in the one spelling in which they are kept.

A deployment has few different values of each among its millions of users, so each check is one look-up in a cache.
"""

import re
from functools import cache, lru_cache
from typing import Final
from zoneinfo import available_timezones

from .limits import locale_chars_max
from .rejections import Rejected

# ISO 3166-1 alpha-2, the officially assigned codes.
COUNTRIES: Final = frozenset(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR
    GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT
    JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY
    MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM
    PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ
    UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
    """.split()  # noqa: SIM905  # a list literal of 249 codes would fill half a page with quotes
)

# RFC 5646, 2.1, without the grandfathered tags (each has a preferred form in this syntax).
_LANGTAG: Final = re.compile(
    r"(?P<language>[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})"
    r"(?:-(?P<script>[a-z]{4}))?"
    r"(?:-(?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(?P<rest>(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants
    r"(?:-[a-wyz0-9](?:-[a-z0-9]{2,8})+)*"  # extensions
    r"(?:-x(?:-[a-z0-9]{1,8})+)?)"  # private use
)


def country(raw: str) -> str:
    """The country's code in upper case; `Rejected` (country_invalid) if ISO 3166-1 does not assign it."""
    if raw in COUNTRIES:
        return raw
    code = raw.strip().upper()
    if code not in COUNTRIES:
        raise Rejected("country_invalid", "country", "`country` must be an ISO 3166-1 alpha-2 code such as DE")
    return code


@lru_cache(maxsize=4_096)
def locale(raw: str) -> str:
    """The language tag in the spelling that RFC 5646, 2.1.1 recommends; `Rejected` (locale_invalid) if it is none."""
    match = _LANGTAG.fullmatch(raw.strip().lower()) if len(raw) <= locale_chars_max else None
    if match is None or not raw.isascii():
        raise Rejected("locale_invalid", "locale", "`locale` must be a BCP 47 language tag such as de-CH or zh-Hans-CN")
    parts = [
        match["language"],
        match["script"] and match["script"].title(),
        match["region"] and match["region"].upper(),
    ]
    return "-".join(part for part in parts if part) + match["rest"]


def time_zone(raw: str) -> str:
    """The time zone's name; `Rejected` (time_zone_invalid) if this machine's IANA database has none of that name."""
    name = raw.strip()
    if name not in _time_zones():
        raise Rejected("time_zone_invalid", "time_zone", "`time_zone` must be an IANA name such as Europe/Zurich")
    return name


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime", "Factory"}  # these name no place
