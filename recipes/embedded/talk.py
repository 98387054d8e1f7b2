"""Spoken text of the embedded world: support conversations, read-backs and small talk.

A conversation is a list of (role, sentence) turns in which every fact of the case is said once and the names and
numbers are said again where people do say them again. Corpus and tasks share it; each lays it out its own way.
"""

from world import Case

Turn = tuple[str, str]

HELLO = ("[Hello|Good morning|Good afternoon|Hi|Good day], [{company}|{company} support|this is {company}], "
         "[{agent} speaking|my name is {agent}|{agent} here|you are talking to {agent}][. How can I help?|. "
         "What can I do for you?|.|. What happened?]")
ASK_NUMBER = ("[May I have the order number?|Which order is it?|Could you give me your order number, please?|Do you "
              "have the number of the order?|I am sorry to hear that, {mr}. What is the order number?|Let me look. "
              "What "
              "does it say under order?|And the number of your order, {mr}?]")
GIVE_NUMBER = "[It is|The number is|One moment. It says|Yes, it is|Order|Here it is:|That would be] {order}."
THANKS = ("[Thank you, {agent}.|Thanks a lot.|That is kind of you, {agent}.|All right, thank you.|Good, I will wait "
          "then.|Perfect, goodbye.|Fine with me. Goodbye, {agent}.|You have been a great help.|Thanks, and a nice "
          "day.]")
BYE = "[You are welcome, {mr}.|Goodbye, {mr}.|Any time, {first}.|Have a nice day, {mr}.|Thank you for calling, {mr}.]"


def complaint(case: Case) -> str:
    """Returns the customer's first words: who, what and since when."""
    opening = case.say("[My name is {name}|This is {name}|{name} here|I am {name}][ from {town}| in {town}|, "
                       "{town}|, I live in {town}].")
    thing = ("[I am calling about|It is about|I have trouble with|I have a question about|I bought|You sold me|I "
             "ordered] [my|a|the] {product}[, the {colour} one|| for the {room}|]")
    if case.issue.family in ("heat", "water", "motor", "battery", "screen", "radio", "sound", "body"):
        story = case.say(thing + ("[, and|. Now|. The trouble is that|. Well,|, but] {said}, {since}[.|. I am at a "
                                  "loss.|. "
                                  "What can be done?|. It is a nuisance.]"))
    else:
        story = case.say(thing + ("[, and|. Well,|. The thing is,|, but] {said}. [I have known that|It has been like "
                                  "that|It has been on my mind|I have been thinking about it] {since}."))
    return f"{opening} {story}"


def answer(case: Case) -> tuple[str, str]:
    """Returns what the agent checked and did, and what comes next."""
    checked = case.say("[Thank you, {mr}.|Thanks.|I see.|Right.|One moment, please.] [I have looked at {check}.|I have "
                       "just checked {check}.|Let me check {check}. Done.|I went through {check} with care.|First I "
                       "looked at {check}.] [Here is what I can do:|So|Well,|Good news:|Then] {act}.")
    following = case.say("[And then|After that,|Next,|Also,|Then|As for the rest,|One more thing:] {next}.")
    return checked, following


def conversation(case: Case, short: bool = False) -> list[Turn]:
    """Returns the turns of one support conversation; `short` leaves out courtesies."""
    rng = case.rng
    turns: list[Turn] = []
    if not short or rng.random() < 0.5:
        turns.append(("agent", case.say(HELLO)))
        first = complaint(case)
    else:
        first = case.say("[Hello|Hi|Good day] {agent}. ") + complaint(case)
    if rng.random() < 0.35:
        turns.append(("customer", f"{first} {case.say('[My order is|The order number is|It was order] {order}.')}"))
    else:
        turns += [("customer", first), ("agent", case.say(ASK_NUMBER)), ("customer", case.say(GIVE_NUMBER))]
        if not short and rng.random() < 0.5:
            turns += [("agent", case.say("[So that is|I read back:|I have] {order}[, the {product}|, for {name}|], "
                                         "[right?|is that correct?|yes?]")),
                      ("customer", case.say("[Yes, {order}.|That is right.|Correct.|Exactly.]"))]
    checked, following = answer(case)
    if case.wish:
        turns.append(("agent", checked))
        turns.append(("customer", case.say("[Good.|Very well.|That is fine.|I see.|Oh, and] {wish}.")))
        turns.append(("agent", case.say("[Noted.|I have written that down.|Of course.|No problem, {mr}.|I "
                                        "understand.] ")
                      + following))
    else:
        turns.append(("agent", f"{checked} {following}"))
    if rng.random() < (0.5 if short else 0.8):
        turns.append(("customer", case.say(THANKS)))
        if not short and rng.random() < 0.5:
            turns.append(("agent", case.say(BYE)))
    return turns


def transcript(case: Case, turns: list[Turn] | None = None) -> str:
    """Returns the turns with speakers in front of them, named in one of several ways."""
    style = case.rng.choice(("{first}/{agent}", "{name}/{agent}", "Caller/{agent}", "Customer/Agent", "{first}/Desk",
                             "{mr}/{agent}"))
    customer, agent = style.format_map(case.words).split("/")
    return "\n".join(f"{customer if role == 'customer' else agent}: {text}" for role, text in
                     turns or conversation(case))


def readback(case: Case) -> str:
    """Returns a stretch of conversation in which names and numbers are said back, spelled and corrected."""
    digits = list(case.words["order"])
    places = case.rng.sample(range(5), 2)
    digits[places[0]], digits[places[1]] = digits[places[1]], digits[places[0]]
    words = case.words | {"wrong": "".join(digits), "spelled": " ".join(case.words["order"]),
                          "letters": "-".join(case.words["last"].upper())}
    told = Case(case.rng, case.issue, case.action, case.following, case.since, case.wish, words)
    lines = [told.say("{agent}: [Your name, please?|Who is calling?|May I have your name?]"),
             told.say("{first}: {name}. [Shall I spell it?|That is spelled {letters}.|{last}, like my father.|]"),
             told.say("{agent}: [Thank you, {name}.|{last}, {name}, I have it.|{mr}, good.] And the [order|number]?"),
             told.say("{first}: {order}. [Digit by digit: {spelled}.|I repeat, {order}.|{spelled}.|]"),
             told.say("{agent}: [{wrong}?|So {wrong}.|I heard {wrong}.]"),
             told.say("{first}: No, not {wrong}[.| but {order}.|, {order}.|. It is {order}.]"),
             told.say("{agent}: {order} then, [the {product}|a {colour} {product}|one {product}] for {name}, "
                      "[{street}, {town}|in {town}|sent to {town}]."),
             told.say("{first}: [Yes. {street}, {town}.|Yes, {product}.|Right, {order}.|That is me, {name}.]")]
    if case.rng.random() < 0.4:
        del lines[4:6]
    return "\n".join(lines)


SMALL_TALK = (
    ("{first}: [How was your weekend, {friend}?|What did you do on {day}, {friend}?]",
     "{friend}: [Quiet. I stayed in {town}.|We went to {town} with {agent}.|I helped {agent} to move to {street}.]",
     "{first}: [To {town}? How nice.|With {agent}? I have not seen {agent} since {date}.|Was {town} nice?]",
     "{friend}: [It rained, but {town} is pretty in the rain.|{agent} says hello, by the way.|Yes, until {hour}.]"),
    ("{first}: [Are you coming to lunch, {friend}?|Lunch, {friend}?]",
     "{friend}: [At {hour}, if {agent} lets me go.|Only after {hour}. I owe {agent} a call.|Ask {agent} too.]",
     "{first}: [{agent} is in {town} until {day}.|{agent} said {hour} as well.|{hour} it is, then.]",
     "{friend}: [Then it is just the two of us.|Until {day}? I thought {agent} was back.|Good, {first}.]"),
    ("{first}: [Who put the {colour} {product} on my desk?|Is that your {product}, {friend}?]",
     "{friend}: [That was {agent}. It came back from {town}.|Not mine. It belongs to {agent}.|A customer from {town}.]",
     "{first}: [And what does {agent} want me to do with the {product}?|From {town}? With which number?]",
     "{friend}: [Just send it to {mr}. The number is {order}.|Label it {order}, please.|Ask {mr} about {order}.]",
     "{first}: [{order}, for {mr}. Fine.|All right, {order}.|{order}, good. Thank you, {friend}.]"),
    ("{first}: [Did you hear? {agent} is leaving {company}.|{agent} starts at our desk on {date}.]",
     "{friend}: [{agent}? On {date}?|{agent} from {town}?|I did not know that, {first}.]",
     "{first}: [Yes, {agent}. We have cake at {hour} on {day}.|The very same. I shall miss {agent}.]",
     "{friend}: [Then I will bring something on {day}.|I will be there at {hour}.|Tell {agent} from me: good luck.]"),
)


def small_talk(case: Case) -> str:
    """Returns colleagues talking about their day."""
    lines = [case.say(line) for line in case.rng.choice(SMALL_TALK)]
    if case.rng.random() < 0.5:
        return "\n".join(lines)
    return "\n".join(lines + [case.say(line) for line in case.rng.choice(SMALL_TALK)])
