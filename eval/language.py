"""Which language a set of texts is probably in, told by its script.

Scripts are all that is looked at: every text in Latin letters is called `en`, every Cyrillic one `ru`. That is enough
to choose tokenizers, which differ by script, and no statement about the language. A recipe that names its language in
`eval.language` is believed instead.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

# The first word of a letter's Unicode name is its script.
_LANGUAGES = {
    "LATIN": "en",
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
    "TIBETAN": "bo",
    "ARABIC": "ar",
    "HEBREW": "he",
    "CYRILLIC": "ru",
    "GREEK": "el",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "ETHIOPIC": "am",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
}
# Names, code and units stand in Latin letters within texts of every language, and hardly ever the other way round.
_SHARE_AGAINST_LATIN = 0.25
# Japanese is written in Han and kana together; a Chinese text holds at most a quoted word of kana.
_SHARE_OF_KANA = 0.2


def detect_language(texts: Sequence[str]) -> str:
    """The code of a language that is written in the script of `texts`.

    Returns:
        `en` for Latin and where there are no letters; `und`, undetermined, for a script that is not in the table.
    """
    characters = Counter(character for text in texts for character in text if character.isalpha())
    letters: Counter[str] = Counter()
    for character, count in characters.items():
        script = unicodedata.name(character, "").replace("-", " ").split(" ")[0]
        letters[_LANGUAGES.get(script, "und")] += count
    if letters["ja"] >= _SHARE_OF_KANA * (letters["ja"] + letters["zh"]):
        letters["ja"] += letters.pop("zh", 0)
    else:
        letters["zh"] += letters.pop("ja", 0)
    latin = letters.pop("en", 0)
    language, count = max(letters.items(), key=lambda item: item[1], default=("en", 0))
    return language if count and count >= _SHARE_AGAINST_LATIN * (letters.total() + latin) else "en"
