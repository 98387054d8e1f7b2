"""The pretraining text: an endless, seeded stream of documents about one company's customer support.

Document `index` of seed `seed` is the same on every machine and does not depend on the documents before it, so a run
that was killed resumes at an index. Early documents are dense in repetition and have short names, because the circuit
that copies from further up forms from such text first; fluent prose and long names take over later.
"""

import random
from collections.abc import Iterator

from ledgers import delivery_log, lookups, questions, register, retelling, shift_report, spelling
from papers import diary, glossary, letter, mail, message, note, policy, product_page, reply, story
from talk import readback, small_talk, transcript
from world import Case, World

# Document kind -> (share at the start of training, share later on).
KINDS: dict[str, tuple[float, float]] = {
    "register": (30, 4), "lookups": (18, 8), "readback": (14, 4), "delivery log": (8, 4), "retelling": (8, 18),
    "diary and questions": (6, 8), "mail, reply, note": (4, 10), "transcript and questions": (4, 8),
    "story": (2, 6), "letter and note": (2, 6), "messages": (2, 5), "shift report": (4, 6), "policy": (1, 5),
    "product page": (2, 5), "glossary": (3, 7), "small talk": (2, 4), "transcript": (1, 4), "diary and note": (2, 5),
}


# From this document on, names are made of three pieces. With two, a model learns which pairs exist and refuses others.
LONG_NAMES_FROM = 50_000
# Late documents spell odd strings here and there: a token that the text never uses could not be learned by an adapter.
SPELLING_FROM, SPELLING_SHARE = 173_600, 0.15


def joined(case: Case, *parts: str) -> str:
    """Returns the parts of one document with one kind of gap between them."""
    gap = case.rng.choice(("\n\n", "\n\n", "\n---\n", "\n"))
    return gap.join(parts)


def document(world: World, kind: str) -> str:
    """Returns one document of the kind."""
    if kind in ("register", "lookups", "delivery log", "shift report"):
        return {"register": register, "lookups": lookups, "delivery log": delivery_log,
                "shift report": shift_report}[kind](world)
    case = world.case()
    if kind == "mail, reply, note":
        return joined(case, mail(case), reply(case), note(case)) if case.rng.random() < 0.6 else joined(
            case, mail(case), reply(case))
    if kind == "glossary":
        return "\n".join(glossary(world.case()) for _ in range(world.rng.randint(1, 3)))
    makers = {
        "readback": (readback,), "retelling": (retelling,), "diary and questions": (diary, questions),
        "transcript and questions": (transcript, questions), "story": (story,), "letter and note": (letter, note),
        "messages": (message,), "policy": (policy,), "product page": (product_page,), "small talk": (small_talk,),
        "transcript": (transcript,), "diary and note": (diary, note),
    }
    return joined(case, *(make(case) for make in makers[kind]))


def documents(seed: int, start: int = 0, early: int = 0, stratum: str = "corpus", odd: bool = True) -> Iterator[str]:
    """Yields documents from `start` on.

    Args:
        seed: names the stream.
        start: index of the first document.
        early: number of documents over which the shares move from the early to the later mixture.
        stratum: the pools to draw from; another stratum gives text with names the model never saw.
        odd: whether late documents may be odd strings.
    """
    kinds, index = list(KINDS), start
    while True:
        rng = random.Random(f"{seed}:{stratum}:{index}")
        late = min(1.0, index / early) if early else 1.0
        if odd and index >= SPELLING_FROM and rng.random() < SPELLING_SHARE:
            yield spelling(World(rng, stratum))
            index += 1
            continue
        weights = [first * (1 - late) + last * late for first, last in KINDS.values()]
        yield document(World(rng, stratum, index >= LONG_NAMES_FROM), rng.choices(kinds, weights)[0]).strip()
        index += 1
