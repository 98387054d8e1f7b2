"""The embedded world: a company's customer support, drawn from open pools by a seeded generator.

Names are put together from pieces and numbers from digits, so there is no list that a model could learn by heart:
to name a customer again, it has to copy. The pools are cut by arithmetic on the pieces into four strata: one for
the pretraining text and one for each split of the task data, so a name in a test row was never seen before.
"""

import random
import re
from dataclasses import dataclass

from lexicon import (
    ACTIONS,
    COLOURS,
    DAYS,
    FAULTS,
    MONTHS,
    NEXT,
    ROOMS,
    SERVICES,
    SINCE,
    THINGS,
    WISHES,
    Deed,
    Issue,
)

COMPANY = "Hallgate"
# The desk that a family of trouble belongs to; every fault goes to the repair desk.
DESKS = {"delivery": "delivery", "contents": "packing", "billing": "billing", "account": "account",
         "visit": "appointment", "return": "returns", "guarantee": "guarantee"}
# Remainders modulo ten that belong to each stratum: the pretraining text gets most of the names.
STRATA: dict[str, tuple[int, ...]] = {
    "corpus": (0, 1, 2, 3, 4, 5), "train": (6, 7), "validation": (8,), "test": (9,),
}


def pieces(words: str) -> list[str]:
    """Returns the words: the heads or tails that names are made of."""
    return words.split()


# What a name is made of: heads, middles, tails. Short names leave the middle out.
POOLS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "first names": (
        pieces("Al Bel Cor Da El Fa Gor Han Il Jo Kas Lu Mar Nel Or Pe Quin Ro Sel Tam Ul Vel Wan Yo Zel Bri Cla Dro "
               "Fen Gre Hil Jas Kir Lor Min Nor Pas Rem Sti Tor"),
        pieces("an or is en al ar il am on id"),
        pieces("a ina ette ia isa ora elle ya ika anna o us ert en ick an or iel ard im")),
    "last names": (
        pieces("Ack Bar Cald Dun Eld Far Gann Hart Ing Jen Kell Lang Mer Nash Oak Pend Quar Rad Sund Thorn Umb Var "
               "Wex Yar Zim Black Crow Dray Fitz Gold Holl Kings Lind Mos North Pem Ros Stan Tull Whit"),
        pieces("ing ill is os am in all ow on el"),
        pieces("man ford well sen son ley berg dale croft worth ham field wick er ing mond rick den stone more")),
    "towns": (
        pieces("Ash Birch Clay Deer East Fern Glen Hazel Iron Kirk Lake Moor New Otter Pine Raven Salt Stone Thistle "
               "Upper Wolf Amber Bridge Cross Dove Elm Fox Green High Long"),
        pieces("ham well field croft wick stone more man"),
        pieces("bury ton port mouth haven bridge by stead minster gate ford side brook ridge pool den")),
    "brands": (
        pieces("Aero Bolt Cira Dyna Evo Flux Gala Hexa Inno Jet Kora Luma Mono Nova Opti Pola Quadra Rapi Sona Tera "
               "Uni Volta Wavi Xeno Yuma Zeta Brio Cento Delta Fora"),
        pieces("lux mix tron vex pro max dex pax"),
        pieces("lux mix tron vex line star pro max dex lite form tec zon pax rio cell")),
}
WOMEN = tuple(POOLS["first names"][2][:10])
STREET_HEADS = pieces(
    "Mill Church Station Garden Orchard River School Market Castle Forest Harbour King Queen Rose Well")
STREET_TAILS = ("Lane", "Road", "Street", "Way", "Close", "Hill", "Square", "Row")


def short_name(rng: random.Random, pool: str, stratum: str) -> str:
    """Returns head + tail whose places in the pool fall into the stratum."""
    heads, _, tails = POOLS[pool]
    while True:
        head, tail = rng.randrange(len(heads)), rng.randrange(len(tails))
        if (7 * head + 3 * tail + head // 10) % 10 in STRATA[stratum]:
            return heads[head] + tails[tail]


def long_names(pool: str, stratum: str) -> list[str]:
    """Returns every head + middle + tail of the pool that belongs to the stratum.

    Any two pieces that stand side by side do so in every stratum, so a model cannot learn which names there are: a
    name that it never saw is as likely as one that it saw, and only the text above tells which one is meant.
    """
    heads, middles, tails = POOLS[pool]
    return [heads[head] + middles[middle] + tails[tail]
            for head in range(len(heads)) for middle in range(len(middles)) for tail in range(len(tails))
            if (head + 3 * middle + 7 * tail + head // 10 + tail // 10) % 10 in STRATA[stratum]
            and middles[middle] != tails[tail]]


LONG_NAMES = {(pool, stratum): long_names(pool, stratum) for pool in POOLS for stratum in STRATA}


def order_number(rng: random.Random, stratum: str) -> str:
    """Returns five different digits; the sum of the weighted digits puts the number into the stratum.

    No digit comes twice, as on a bicycle lock: a read-back of such a number can be checked at a glance.
    """
    while True:
        digits = rng.sample(range(10), 5)
        if digits[0] and sum((2 * place + 1) * digit for place, digit in enumerate(digits)) % 10 in STRATA[stratum]:
            return "".join(map(str, digits))


def expand(rng: random.Random, pattern: str) -> str:
    """Replaces every [one|two|three], innermost first, by one of its alternatives."""
    while "[" in pattern:
        pattern = re.sub(r"\[([^\[\]]*)\]", lambda found: rng.choice(found.group(1).split("|")), pattern)
    return pattern


def tidy(text: str) -> str:
    """Returns the text with sentences capitalised, `a` before vowels made `an`, and stray spaces removed."""
    text = re.sub(r'(^ *|[.!?] +|\n)("?)([a-z])', lambda found: found[1] + found[2] + found[3].upper(), text)
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIO])", r"\1n ", text)
    return re.sub(r" +([,.;?!\n])", r"\1", re.sub(r"  +", " ", text))


@dataclass(frozen=True)
class Case:
    """One customer's case: every fact, as a table of words that a pattern may name in braces."""

    rng: random.Random
    issue: Issue
    action: Deed
    following: Deed
    since: Deed
    wish: Deed | None
    words: dict[str, str]

    def say(self, pattern: str) -> str:
        """Returns the pattern with alternatives chosen and facts filled in."""
        return tidy(expand(self.rng, pattern).format_map(self.words))


class World:
    """Draws entities and cases of one stratum from one random generator, with short names or with long ones."""

    def __init__(self, rng: random.Random, stratum: str, long: bool = True) -> None:
        self.rng, self.stratum, self.long = rng, stratum, long

    def name(self, pool: str) -> str:
        if self.long:
            return self.rng.choice(LONG_NAMES[pool, self.stratum])
        return short_name(self.rng, pool, self.stratum)

    def first(self) -> str:
        return self.name("first names")

    def last(self) -> str:
        return self.name("last names")

    def town(self) -> str:
        return self.name("towns")

    def brand(self) -> str:
        return self.name("brands")

    def order(self) -> str:
        return order_number(self.rng, self.stratum)

    def street(self) -> str:
        return f"{self.rng.randint(2, 98)} {self.rng.choice(STREET_HEADS)} {self.rng.choice(STREET_TAILS)}"

    def date(self) -> str:
        return f"{self.rng.randint(1, 28)} {self.rng.choice(MONTHS)}"

    def hour(self) -> str:
        return f"{self.rng.randint(8, 19)}:{self.rng.choice(('00', '15', '30', '45'))}"

    def person(self) -> dict[str, str]:
        """Returns a customer's names and pronouns; the first ten endings are women's, the others men's."""
        first, last = self.first(), self.last()
        woman = first.endswith(WOMEN)
        title, they, them, their = ("Ms", "she", "her", "her") if woman else ("Mr", "he", "him", "his")
        return {"first": first, "last": last, "name": f"{first} {last}", "mr": f"{title} {last}", "they": they,
                "them": them, "their": their, "town": self.town(), "street": self.street()}

    def thing(self) -> dict[str, str]:
        thing, brand = self.rng.choice(list(THINGS)), self.brand()
        return {"thing": thing, "brand": brand, "product": f"{brand} {thing}", "colour": self.rng.choice(COLOURS),
                "price": str(self.rng.randint(18, 489)), "order": self.order(), "months": str(self.rng.randint(1, 40)),
                "room": self.rng.choice(ROOMS)}

    def small_facts(self) -> dict[str, str]:
        day = self.rng.choice(DAYS)
        return {"agent": self.first(), "agentlast": self.last(), "colleague": self.first(), "friend": self.first(),
                "day": day, "date": self.date(), "date2": self.date(), "hour": self.hour(), "company": COMPANY}

    def case(self, fault_share: float = 0.55) -> Case:
        """Returns a case in which action fits issue and every deed's own slots are filled from the same facts."""
        rng = self.rng
        words = self.person() | self.thing() | self.small_facts()
        if rng.random() < fault_share:
            issue = rng.choice([fault for fault in FAULTS if fault.family in THINGS[words["thing"]]])
            action = rng.choice(ACTIONS["fault"])
        else:
            issue = rng.choice(SERVICES)
            action = rng.choice(ACTIONS[issue.family])
        following, since = rng.choice(NEXT), rng.choice(SINCE)
        wish = rng.choice(WISHES) if rng.random() < 0.6 else None
        said = rng.sample(issue.said, 2)
        words |= {"said": said[0], "said2": said[1], "house": issue.house, "check": issue.check,
                  "act": action.said, "acted": action.noted, "since": since.said, "since_noted": since.noted}
        words["next"], words["next_noted"] = following.said.format_map(words), following.noted.format_map(words)
        words["desk"] = DESKS.get(issue.family, "repair")
        words["wish"] = wish.said.format_map(words) if wish else ""
        words["wish_noted"] = wish.noted.format_map(words) if wish else ""
        return Case(rng, issue, action, following, since, wish, words)
