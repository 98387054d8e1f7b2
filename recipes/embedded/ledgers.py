"""Lists, reports and questions: text in which many names and numbers are said, and then looked up again.

These documents exist for one reason: a small model learns to copy what it has never seen only where copying pays,
and here nearly every second word can be found further up.
"""

import random

from papers import note
from talk import transcript
from world import Case, World


def register(world: World) -> str:
    """Returns a list of records followed by the same records in another order and another form."""
    rng = world.rng
    people = [world.person() | world.thing() | world.small_facts() for _ in range(rng.randint(2, 6))]
    line = rng.choice(("{name}, {order}", "{order} {name}", "{name}: {product}", "{order}: {product} for {name}",
                       "{name}, {town}, {order}", "{name} ({town})", "{brand} {thing}, {town}, {order}",
                       "{name} - {date} - {agent}", "{last}, {first}: {price} euros", "{order} goes to {town}"))
    rows = [line.format_map(person) for person in people]
    again = rows[:]
    rng.shuffle(again)
    head = rng.choice(("Orders", "Today", "On the shelf", "Parcels out", "List", "Names", "To be called"))
    repeat = rng.choice(("Again", "Checked", "Second copy", "In the evening", "Once more", "Sorted"))
    return f"{head}\n" + "\n".join(rows) + f"\n{repeat}\n" + "\n".join(again)


# Where odd characters are drawn from: printable ASCII twice, then accents, Greek, Cyrillic, kana, Han, emoji.
SCRIPTS = ((33, 126), (33, 126), (0xA1, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x3041, 0x30FF), (0x4E00, 0x9FA5),
           (0x1F300, 0x1F64F))


def odd_word(rng: random.Random) -> str:
    """Returns a string that nobody ever wrote: letters in any order, or characters of one script."""
    if rng.random() < 0.7:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9)))
    first, last = rng.choice(SCRIPTS)
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 5)))


def spelling(world: World) -> str:
    """Returns odd strings among names, and the same strings again: so that no token stays unknown to the model."""
    rng = world.rng
    items = [rng.choice((odd_word(rng), odd_word(rng), odd_word(rng).capitalize(), world.first(), world.order()))
             for _ in range(rng.randint(3, 14))]
    gap = rng.choice((" ", " ", "; ", "; ", ", ", " - ", " / ", "\n", " | ", "; "))
    first, again = rng.choice((("Spelled", "Again"), ("Copy", "Copied"), ("Read", "Read back"), ("Code", "Yes")))
    return f"{first}: {gap.join(items)}\n{again}: {gap.join(items)}"


def lookups(world: World) -> str:
    """Returns several records in sentences and short questions about them, answered from the records."""
    rng = world.rng
    people = [world.person() | world.thing() | world.small_facts() for _ in range(rng.randint(2, 4))]
    say = Case(rng, None, None, None, None, None, {})  # type: ignore[arg-type]
    facts, asked = [], []
    for person in people:
        told = Case(rng, say.issue, say.action, say.following, say.since, None, person)
        facts.append(told.say("[{name} from {town} has a {product}, order {order}.|Order {order} is a {product} for "
                              "{name} in {town}.|In {town} lives {name}, who bought a {product} ({order}).|The "
                              "{product} "
                              "under {order} belongs to {name}, {town}.|{agent} looks after {name} of {town}, "
                              "{product}, {order}.]"))
        asked.append(told.say("[Where does {first} live?|And {first} {last}? From where?|Which town is {mr} from?] "
                              "[{town}.|In {town}.|{first} lives in {town}.]"))
        asked.append(told.say("[Who has order {order}?|Whose is {order}?|{order}?] [{name}.|That is {name}.|{mr}.]"))
        asked.append(told.say("[What did {first} buy?|What does {mr} own?] [A {product}.|The {product}.|{product}.]"))
        asked.append(told.say("[What is the number of {name}?|Number of {first}?|Which order is {mr}'s?] [{order}.|"
                              "It is {order}.|Order {order}.]"))
        asked.append(told.say("[Who bought the {brand}?|Who has the {product}?] [{name}.|{first}.|{name}, {town}.]"))
    rng.shuffle(facts)
    return " ".join(facts) + "\n" + "\n".join(rng.sample(asked, min(len(asked), rng.randint(4, 8))))


QUESTIONS = (
    ("[Who called?|Who is the customer?|Whose {thing} is it?]", "[{name}.|{name}, {town}.|That was {name}.]"),
    ("[What is the order number?|Which order?|What number?]", "[{order}.|Order {order}.|It is {order}.]"),
    ("[Which product is it?|What is it about?]", "[The {product}.|A {product}.|{product}.]"),
    ("[Where does {first} live?|From which town?]", "[{town}.|In {town}.]"),
    ("[Who took the call?|Which agent was it?|Who answered {mr}?]", "[{agent}.|It was {agent}.]"),
    ("[What do we call it?|What is wrong?|In our words?]", "[{house}.|We call it {house}.]"),
    ("[Since when?|How long?]", "[{since_noted}.|It began {since_noted}.]"),
    ("[What was done?|What did {agent} do?]", "[{agent} {acted}.|I see: {acted}.]"),
    ("[What comes next?|What is open?|And now?]", "[{next_noted}.|Next: {next_noted}.]"),
    ("[What was checked?|What did {agent} look at?]", "[{check}.|{agent} looked at {check}.]"),
)


def questions(case: Case) -> str:
    """Returns questions about the case with short answers."""
    chosen = case.rng.sample(QUESTIONS, case.rng.randint(3, 6))
    prefix = case.rng.choice(("", "- ", "? "))
    return "\n".join(prefix + case.say(question) + " " + case.say(reply) for question, reply in chosen)


def shift_report(world: World) -> str:
    """Returns several cases in a line each, and what is handed over, which names some of them again."""
    rng = world.rng
    cases = [world.case() for _ in range(rng.randint(2, 4))]
    shift = rng.choice(("Early shift", "Late shift", "Shift", "Night desk"))
    lines = [cases[0].say(f"{shift}, {{day}} {{date}}, written by {{agent}} {{agentlast}}.")]
    for case in cases:
        lines.append(case.say("[{order}: {name}, {product}, {house}. {acted}.|{name} ({town}) called about {order}. "
                              "{house}, {product}.|At {hour} {name} from {town}: {house} on the {product}, {order}.]"))
    lines.append(rng.choice(("Still open:", "For tomorrow:", "Hand over:", "Please remember:")))
    for case in rng.sample(cases, rng.randint(1, len(cases))):
        lines.append(case.say("[{order}, {mr}: {next_noted}.|{name}, {next_noted}.|The {product} of {mr}, {order}. "
                              "{next_noted}.]"))
    return "\n".join(lines)


def delivery_log(world: World) -> str:
    """Returns a driver's round: parcels loaded, and then what became of each."""
    rng = world.rng
    stops = [world.person() | world.thing() | world.small_facts() for _ in range(rng.randint(2, 4))]
    cases = [Case(rng, None, None, None, None, None, stop) for stop in stops]  # type: ignore[arg-type]
    lines = [cases[0].say("Driver {agent}, {date}[, van {colour}|]. Loaded:")]
    lines += [case.say("{order}, {product}, {name}, {street}, {town}") for case in cases]
    rng.shuffle(cases)
    lines.append("Round:")
    lines += [case.say("{hour} [{order} handed to {name} in {town}.|nobody at home at {street}, {order} goes back.|"
                       "{first} {last} was not in, the {product} is with {friend}.|{name} signed for the {product}.|"
                       "{town}: {mr} took {order}.]") for case in cases]
    return "\n".join(lines)


def retelling(case: Case) -> str:
    """Returns a conversation and then the house's note about it: the same facts in two voices."""
    link = case.rng.choice(("\n\n", "\n\n", "\n---\n", "\n\nLater:\n"))
    return transcript(case) + link + note(case)
