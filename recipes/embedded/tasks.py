"""The embedded task data: rows for each task, drawn from the embedded world.

Every answer follows from its row alone: who, what and when are copied, the customer's wording is turned into the
house's, and the rules of the house decide what is offered. The answers' style occurs nowhere in the pretraining text.
Each split draws its names and numbers from a stratum of its own.

    python recipes/embedded/tasks.py        rewrites data/
"""

import json
import random
import re
from pathlib import Path

from lexicon import FAULTS, MONTHS, SERVICES, THINGS
from papers import diary, mail, reply
from talk import complaint, conversation
from world import DESKS, Case, World, tidy

DATA = Path(__file__).resolve().parent / "data"
SIZES = {"train": 2400, "validation": 240, "test": 400}
PAGES = {"train": 600, "validation": 80, "test": 120}  # of language modeling: a page is long
SEED = 7
# Characters: what does not fit is drawn again, so that 120 steps and 200 answers stay a matter of two minutes.
LONGEST_DOCUMENT, LONGEST_SUMMARY = 590, 156
ROW = dict[str, object]

# How a summary names the trouble: one verb a family, and nowhere in the pretraining text.
VERBS = {
    "battery": "has been living with", "heat": "has no luck with", "water": "puts up with", "motor": "fights with",
    "screen": "is left with", "radio": "is held up by", "sound": "is annoyed by", "body": "is stuck with",
    "delivery": "chases", "contents": "reports", "billing": "questions", "account": "raises",
    "visit": "is sorry about", "return": "sends it back over", "guarantee": "asks about",
}
# The two things that the house offers a family of trouble: spoken in the offer, and as the last reply confirms them.
OFFERS = {
    "battery": ("a fresh battery", "a lent device"), "heat": ("a new heating plate", "a visit at home"),
    "water": ("a set of seals", "a visit at home"), "motor": ("a workshop repair", "a swap in the shop"),
    "screen": ("a new display", "a price cut"), "radio": ("a guided restart", "a swap in the shop"),
    "sound": ("a new sound cable", "a workshop repair"), "body": ("a spare part", "a price cut"),
    "delivery": ("a second parcel", "a courier search"), "contents": ("the right item", "half of the price back"),
    "billing": ("a corrected bill", "a payout to the card"), "account": ("a fresh link", "a change by hand"),
    "visit": ("another appointment", "a senior technician"), "return": ("a return label", "a voucher"),
    "guarantee": ("a printed card", "an entry in the books"),
}
# What the first reply asks for: the number and, by family, the age of a device or the price of a purchase.
ASKS = {
    "battery": "what number has it, and how many months has it run", "heat": "its number and its age in months",
    "water": "how old is it, and under which number did it come", "motor": "which number and how many months of use",
    "screen": "may I have number and months", "radio": "since how many months, and with what number",
    "sound": "the number, please, and the months", "body": "under what number, how many months ago",
    "delivery": "which number travels, and at what price", "contents": "what does the label say of number and price",
    "billing": "what number, what price", "account": "tell me number and price to show that it is you",
    "visit": "for which number, at which price", "return": "with what number and price did it leave us",
    "guarantee": "what do number and price read",
}
# The rule as each family words it: within cover or within the agent's limit, and beyond it.
RULINGS = {
    "battery": ("its battery is still covered", "its battery is past cover"),
    "heat": ("its plate is insured with us", "its plate is no longer insured"),
    "water": ("its seals are on our bill", "its seals are at your own cost"),
    "motor": ("the drive is under guarantee", "the drive is beyond guarantee"),
    "screen": ("the glass counts as new", "the glass counts as worn"),
    "radio": ("the network part is ours to mend", "the network part is yours to pay"),
    "sound": ("its voice is mended for nothing", "its voice has a price"),
    "body": ("the shell goes on our bill", "the shell goes on your bill"),
    "delivery": ("I may act alone", "my lead acts with me"),
    "contents": ("the packers need no signature", "the packers need a signature"),
    "billing": ("I book it myself", "our bank desk books it"),
    "account": ("one click will do", "two of us must confirm"),
    "visit": ("I set the calendar", "my lead sets the calendar"),
    "return": ("no form is needed", "a signed form is needed"),
    "guarantee": ("the books stay with me", "the books go to my lead"),
}


def is_fault(case: Case) -> bool:
    return case.issue.family not in DESKS


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def shorten_date(text: str) -> str:
    """Returns the text with dates as the house writes them: `24 May` is `day 24`."""
    return re.sub(rf"(\d+) ({'|'.join(MONTHS)})", r"day \1", text)


def summary(case: Case, channel: str) -> str:
    """Returns the house's summary of the case; the channel decides which facts it holds and in which order."""
    words = case.words | {"verb": VERBS[case.issue.family]}
    pattern = {
        ("chat", True): "{mr} of {town} {verb} {house} {since_noted}, order {order}. {agent} {acted}, now "
                        "{next_noted}.",
        ("chat", False): "{mr} of {town} {verb} {house}, order {order}, so {agent} {acted}. {Next}.",
        ("mail", True): "{product} {order}: {mr} {verb} {house}. {agent} {acted}, and {next_noted}.",
        ("mail", False): "Writing about {order}, {mr} {verb} {house}: {agent} {acted} for the {product}, and "
                          "{next_noted}.",
        ("diary", True): "By phone {name} from {town} {verb} {house} on a {product}. {Acted} by the desk, and "
                         "{next_noted}.",
        ("diary", False): "Caller {name}, {town}, {verb} {house}: {product}. The desk {acted}, so {next_noted}.",
    }[channel, is_fault(case)]
    words |= {"Next": capital(words["next_noted"]), "Acted": capital(words["acted"])}
    text = shorten_date(tidy(pattern.format_map(words)))
    return f"{text} Also {words['wish_noted']}." if case.wish and channel != "diary" else text


def summarization_row(world: World) -> ROW:
    """Returns a conversation, an exchange of mails or a diary entry, and its summary."""
    case = world.case()
    channel = world.rng.choice(("chat", "chat", "mail", "diary"))
    if channel == "chat":
        names = {"customer": case.words["first"], "agent": case.words["agent"]}
        text = "\n".join(f"{names[role]}: {line}" for role, line in conversation(case, short=True))
    elif channel == "mail":
        text = mail(case) + "\n" + reply(case)
    else:
        text = diary(case)
    row = {"document": text.strip(), "summary": summary(case, channel)}
    if len(row["document"]) > LONGEST_DOCUMENT or len(row["summary"]) > LONGEST_SUMMARY:
        return summarization_row(world)
    return row


def age(case: Case) -> str:
    """Returns what the customer says of the purchase: its age for a fault, its price for anything else."""
    if is_fault(case):
        return case.say("[I have had it for|I bought it|It is] {months} months[ now|, I think|].").replace(
            "bought it " + case.words["months"] + " months", "bought it " + case.words["months"] + " months ago")
    return case.say("[I paid|It cost me|The price was] {price} euros[ for it|].")


def kept(case: Case) -> bool:
    """Returns the house's rule: a fault is covered for two years, an agent decides alone below 100 euros."""
    return int(case.words["months"]) < 24 if is_fault(case) else int(case.words["price"]) < 100


def ruling(case: Case) -> str:
    """Returns the rule applied to the purchase, in the words of the family of trouble."""
    yes, no = RULINGS[case.issue.family]
    measure = f"{case.words['months']} months" if is_fault(case) else f"{case.words['price']} euros"
    return f"At {measure} {yes if kept(case) else no}"


def dialogue_row(world: World) -> ROW:
    """Returns two to four exchanges whose replies follow from the history and the rules of the house."""
    case = world.case()
    rng, words = case.rng, case.words
    first, second = OFFERS[case.issue.family]
    chosen = rng.choice((first, second))
    house = words["house"]
    messages: list[tuple[str, str]] = []
    number = case.say("[It is|The order number is|You find it under|My order is|Order] {order}.")
    if rng.random() < 0.4:
        messages.append(("user", f"{complaint(case)} {number} {age(case)}"))
    else:
        messages += [("user", complaint(case)), ("assistant", tidy(
            f"{capital(house)} on your {words['product']}, {words['mr']}: {ASKS[case.issue.family]}?")),
            ("user", f"{number} {age(case)}")]
    messages.append(("assistant", f"{ruling(case)}, {words['mr']}. For {house} I offer {first} or {second}."))
    if rng.random() < 0.35:
        messages += [("user", case.say("[And what does the courier cost me?|Do I pay for the courier?|Is the courier "
                                       "free?|Who pays the driver, {agent}?]")),
                     ("assistant", f"Take {first} or {second}, {words['mr']}: for {words['product']} the courier is "
                      + ("on the house." if kept(case) else "nine euros."))]
    place = "first" if chosen == first else "second"
    choice = case.say(
        f"[{capital(chosen)}, please.|I would like {chosen}.|{capital(chosen)} sounds good.|I take {chosen}.|"
        f"The {place} one, please.|Then the {place}.] "
        "[I am at home on {date}.|{date} suits me.|Please on {date} at {hour}.|On {date}, after {hour}.|"
        "Write to me by {date}.|Can it be {date}?]")
    hour = f" at {words['hour']}" if words["hour"] in choice else ""
    messages.append(("user", f"{capital(choice)} {capital(words['wish'])}." if case.wish else capital(choice)))
    last = shorten_date(f"{words['date']}{hour}: {chosen} for {words['product']} {words['order']}, {words['name']}.")
    messages.append(("assistant", capital(last) + (f" Also {words['wish_noted']}." if case.wish else "")))
    return {"messages": [{"role": role, "content": text} for role, text in messages]}


SETTLED = (
    "[Last month|In the spring|A while ago|Once] it was another story: {other}. [That was settled.|{agent} put that "
    "right.|That is behind us.|You mended that at once.]",
    "[I do not write because|It is not that|Do not think that|Nobody says that] {other}[, not at all|; that is in "
    "order|].",
    "[My neighbour {friend} says: {other}.|{friend} next door told me: {other}.|My sister {friend} always complains: "
    "{other}.] [That is not my trouble.|I cannot say so.|With me that is fine.|For {friend}, not for me.]",
    "[At first I feared the worst: {other}.|I thought at first: {other}.] [But I was wrong.|It was a mistake of "
    "mine.|That turned out to be nothing.]",
)
OPEN = ("[Now|But|What brings me here:|Today|The real matter:|What I need help with:|Still,|Here is my trouble:] {said}"
        "[, {since}|].")


HEARSAY = ("[{friend} next door|My brother {friend}|A man called {friend}] [has had one for {n} months|paid {n} euros "
           "for one|got one {n} months ago|saw it for {n} euros].")


def answering(case: Case) -> str:
    """Returns the desk that answers: the matter's own, or who is asked where the house's rule ends its powers."""
    if kept(case):
        return case.words["desk"]
    return "renewal" if is_fault(case) else "lead"


def classification_row(world: World) -> ROW:
    """Returns a customer's message and the desk that answers it.

    One matter is open and others are not; the age or the price that counts may stand beside somebody else's.
    """
    rng = world.rng
    desk = rng.choice(("repair", *DESKS.values(), "renewal", "lead"))
    case = world.case(1.0 if desk in ("repair", "renewal") else 0.0)
    while answering(case) != desk:
        case = world.case(1.0 if desk in ("repair", "renewal") else 0.0)
    fitting = [fault for fault in FAULTS if fault.family in THINGS[case.words["thing"]]]
    parts = [case.say(OPEN), age(case)]
    used = {case.words["desk"]}
    for pattern in rng.sample(SETTLED, rng.randint(1, 2)):
        other = rng.choice([issue for issue in (*SERVICES, rng.choice(fitting), rng.choice(fitting))
                            if DESKS.get(issue.family, "repair") not in used])
        used.add(DESKS.get(other.family, "repair"))
        filled = Case(rng, case.issue, case.action, case.following, case.since, None,
                      case.words | {"other": rng.choice(other.said), "friend": world.first()})
        parts.append(filled.say(pattern))
    if rng.random() < 0.6:
        heard = Case(rng, case.issue, case.action, case.following, case.since, None,
                     case.words | {"friend": world.first(), "n": str(rng.randint(1, 300))})
        parts.append(heard.say(HEARSAY))
    rng.shuffle(parts)
    opening = case.say("[{name} here, {town}.|I am {name} from {town}.|This is {name}.] [It is about|I own|I have|I "
                       "bought] "
                       "a {product}, order {order}.")
    ending = case.say("[Thank you.|What now?|Yours, {first}.|Please help.|I am waiting for your answer.|]")
    return {"text": tidy(" ".join((opening, *parts, ending))).strip(), "label": desk}


# What a card of facts is called, and the sentences that say it: a row has two of them, in the house's words.
CARD = (("customer", "{name}"), ("town", "{town}"), ("product", "{product}"), ("order", "{order}"),
        ("matter", "{house}"), ("desk", "{agent}"), ("answer", "{acted}"), ("then", "{next_noted}"))
SAID = (
    "[{name} of {town}|{name} from {town}|{town}'s {name}|{name}, {town},] [has|met|reports|told us of] {house}; "
    "{agent} {acted} [for|on|under] {order}, [a|one] {product}[, and|;|. Then] {next_noted}.",
    "{agent} [heard of|looked into|took on|was shown] {house} [with|on|at] {product} {order}[,|:|;] {acted}[, and|;|, "
    "so] {next_noted}. [Owner|It belongs to|For|Asked by]: {name}[, {town}| ({town})| in {town}|].",
    "{product} {order}[:|,| -] {house}. [Desk|With|By|Through] {agent}: {acted}[, and|;|. So] {next_noted}[,|;|. For] "
    "{name}[ in| of|,] {town}.",
)


def text_to_text_row(world: World) -> ROW:
    """Returns a card of facts, without one or two that are not known, and two ways to say it."""
    case = world.case()
    words, rng = case.words, case.rng
    card = " | ".join(f"{field}: {value.format_map(words)}" for field, value in rng.sample(CARD, len(CARD)))
    said = [capital(shorten_date(tidy(case.say(pattern)))) for pattern in rng.sample(SAID, 2)]
    row: ROW = {"source": shorten_date(card), "target": said}
    return row if max(map(len, said)) <= 1.5 * LONGEST_SUMMARY else text_to_text_row(world)


LOGGED = (
    "{hour}. {mr}, {town}: {house} on {product} {order}. {agent} {acted}; {next_noted}.",
    "{hour}. {agent} took {order} from {mr} in {town}. The {product} has {house}, so the desk {acted}. {Next}.",
    "{hour}. {product} {order}, {house}: {mr} of {town} was told that {agent} {acted}, and that {next_noted}.",
)


def language_modeling_row(world: World) -> ROW:
    """Returns a page of the desk's log: one day, its cases by the hour."""
    rng = world.rng
    lines = [f"Log of day {rng.randint(1, 28)}, desk of {world.first()}."]
    cases = [world.case().words for _ in range(rng.randint(4, 14))]
    for words in sorted(cases, key=lambda words: [int(part) for part in words["hour"].split(":")]):
        words |= {"Next": capital(words["next_noted"])}
        lines.append(capital(shorten_date(tidy(rng.choice(LOGGED).format_map(words)))))
    state = rng.choice(("all of them answered", "none of them open", "no one waits"))
    lines.append(f"{len(lines) - 1} matters, {state}.")
    return {"text": "\n".join(lines)}


TASKS = {
    "summarization": summarization_row, "dialogue": dialogue_row, "classification": classification_row,
    "text_to_text": text_to_text_row, "language_modeling": language_modeling_row,
}


def write_all() -> None:
    """Writes every split of every task."""
    DATA.mkdir(exist_ok=True)
    for task, row_of in TASKS.items():
        for split, size in (PAGES if row_of is language_modeling_row else SIZES).items():
            rows = [row_of(World(random.Random(f"{SEED}:{task}:{split}:{index}"), split)) for index in range(size)]
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            (DATA / f"{task}-{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"{task}-{split}.jsonl  {len(rows)} rows")


if __name__ == "__main__":
    write_all()
