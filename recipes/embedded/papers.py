"""Written text about one case: notes, mails, letters, diaries and stories, each of which restates the case.

No document here has the shape or the diction of a task's answer: notes are labelled lists or first-person jottings.
"""

from talk import answer, complaint
from world import Case

NOTES = (
    "Case {order}\nCustomer: {name}, {town}\nItem: {product}\nTrouble: {house} ({since_noted})\nChecked: {check}\n"
    "Done: {acted}\nNext: {next_noted}",
    "Note by {agent}. {house} on {product}, {colour}, number {order}. Owner {name}, {street}, {town}. Looked at "
    "{check}. "
    "I have {acted}. Open: {next_noted}.",
    "{order} / {last} / {product}\n[They say|In their words]: {said}.\nWe call it: {house}.\nStep taken: {acted}.\n"
    "To do: {next_noted}.",
    "Name {name}. Town {town}. Order {order}. Product {product}. Fault: {house}, {since_noted}. Result: {acted}, then "
    "{next_noted}. Signed {agent}.",
    "For {colleague}: {mr} ({town}) has {house}, {product}, {order}. I {acted}. What remains: {next_noted}. {agent}",
    "[Taken by|Agent] {agent}. [To|For] the {desk} desk. {name}, {town}: {house}, {since_noted}. {product}, {order}. "
    "[So far|Until now]: {acted}. [Then|Later]: {next_noted}.",
)


def note(case: Case) -> str:
    """Returns the house's own note about the case."""
    text = case.say(case.rng.choice(NOTES))
    return text + case.say("[\nRemember: {wish_noted}.|\nWish: {wish_noted}.|]") if case.wish else text


def mail(case: Case) -> str:
    """Returns a customer's mail about the case."""
    wish = case.say(" {wish}.") if case.wish else ""
    routed = case.say("\n[Forwarded to the {desk} desk.|This goes to the {desk} desk.|{desk} desk, please take "
                      "{name}.||]")
    return case.say(
        "[From: {name}\nTo: {company}\n|]Subject: [{product}|Order {order}|{product}, order {order}|My "
        "{thing}]\n\n[Dear "
        "{company}|Hello|Dear Sir or Madam|Dear {agent}],\n") + complaint(case) + case.say(
        " [The order number is|You will find it under|My order was] {order}.") + wish + case.say(
        "\n[Kind regards|Yours|Best wishes|Thank you],\n{name}[\n{street}, {town}|]") + routed.rstrip()


def reply(case: Case) -> str:
    """Returns the house's answer to such a mail, which says the facts back."""
    checked, following = answer(case)
    return case.say("Dear {mr},\n[thank you for your mail about the {product}.|you wrote to us about order "
                    "{order}.|I am sorry about the {product}, order {order}.|we are sorry that {they_trouble}.] "
                    .replace("{they_trouble}", "your {thing} gives you trouble")
    ) + checked + " " + following + case.say(
        "\n[If you write again, please name order {order}.|Your order is still {order}.|The {product} stays under "
        "{order}.|]\n[Regards|Kind regards|Yours],\n{agent} {agentlast}, {company}")


def diary(case: Case) -> str:
    """Returns an agent's recollection of the case, in the first person."""
    return case.say(
        "[{day}, {hour}.|Today at {hour}|Early on {day}|Just before lunch] [a call from {name} in {town}.|I spoke with "
        "{name} from {town}.|{name} of {town} was on the line.|{name} from {town} rang.] [It was about a "
        "{product}.|The "
        "{product} again!|{first} owns a {product}.|{first} keeps a {colour} {product} in the {room}.] [\"{said}\", "
        "{they} said.|{first} said: \"{said}\".|\"{said}\", that is how {first} put it.] [{house}, I thought.|I "
        "knew it at "
        "once: {house}.|In our words: {house}.] [I asked for the number, and it was {order}.|Order {order}, said "
        "{first}.|The box said {order}.] [I checked {check}.|First came {check}.] [I told {them}: "
        "\"{act}.\"|\"{act}\", I "
        "said.] [{first} was glad.|{first} laughed.|{mr} thanked me twice.|I could hear that {first} was pleased.] "
        "[\"And "
        "{next}\", I added.|In the book I wrote under {order}: {next_noted}.|I promised: \"{next}.\"] "
        "[I hope that {first} {last} will be happy with the {product} again.|So much for order {order}.|"
        "Then I closed the book on {name}.|That was {name} and the {product}.|]")


def story(case: Case) -> str:
    """Returns a short story of a support day in the past tense."""
    return case.say(
        "[It was a {day} in {town}.|The {day} began quietly in {town}.|On {day} the rain fell on {town}.] {name} "
        "[stood in the {room}|sat in the {room}|walked into the {room}] and looked at the {product}. [The {thing} was "
        "{colour} and quite new.|The {colour} {thing} had come on {date}.|It had cost {price} euros.] \"{said}\", said "
        "{first}[ to {friend}|]. [{friend} shook a head.|{friend} looked up.|\"Again?\" asked {friend}.] [\"Call "
        "{company}\", said {friend}.|\"Have you called them, {first}?\"|\"Ask {company}, {first}.\"] So {first} "
        "[found the "
        "number {order} on the box|took the paper with the number {order}] and called. [{agent} answered at {hour}.|A "
        "friendly voice answered: {agent}.|\"{agent} speaking\", said the voice.] {first} [told {agent} "
        "everything|spoke of "
        "the {product}|read out {order}]. [{agent} checked {check}.|{agent} asked about {check}.] \"{act}\", said "
        "{agent}. [{first} smiled.|\"Really?\" asked {first}.|{first} wrote it down.] \"{next}.\" [On {date} "
        "{friend} asked "
        "{first}: \"And the {product}?\"|Later {friend} asked what {agent} had said.|\"Who was it?\" asked {friend}. "
        "\"{agent}\", said {first}.] [\"All is well\", said {first}.|\"They will see to it\", said {first}.|{first} "
        "{last} only smiled.|\"The {brand} is in good hands\", said {first}.]")


def message(case: Case) -> str:
    """Returns notes that colleagues pass to each other about the case."""
    lines = [
        case.say("{agent} to {colleague}: [can you take {mr}?|do you know {name}?|who looks after {order}?|have you "
                 "seen "
                 "order {order}?]"),
        case.say("{colleague} to {agent}: [the one with the {product}?|{mr} from {town}?|{order}? What is it?|which "
                 "{thing} is that?]"),
        case.say("{agent} to {colleague}: [yes, {name}, {product}.|{name} from {town}, order {order}.|the {product}, "
                 "order {order}.] {house}. \"{said}.\""),
        case.say("{colleague} to {agent}: [and what did you do?|have you looked at {check}?|poor {first}.]"),
        case.say("{agent} to {colleague}: I {acted}. [{next_noted}.|The plan: {next_noted}.]"),
        case.say("{colleague} to {agent}: [a thing for the {desk} desk. I will note it under {order}.|I will tell "
                 "{mr}.|then {name} is in "
                 "good hands.|that is for the {desk} desk.|good, {order} goes on my list.]"),
    ]
    return "\n".join(lines)


def letter(case: Case) -> str:
    """Returns a formal letter with an address head that the text repeats."""
    return case.say(
        "{name}\n{street}\n{town}\n\n{date2}\n\n[Your order {order}|{product}, order {order}|Your "
        "{product}]\n\nDear {mr},\n[we "
        "write about your {product}|this letter is about the {colour} {product}|on {date2} we spoke about your "
        "{product}] with the number {order}. [You told {agent} {agentlast}|You told us]: \"{said}.\" [We have "
        "looked at "
        "{check}.|{agent} has looked at {check}.] {act}. {next}. [The {product} costs you nothing more.|You paid "
        "{price} "
        "euros, and those {price} euros are safe.|You have owned it for {months} months, so it is "
        "{cover}.] [We send this letter to {street}, {town}.|Please tell us if {street} in {town} is no longer your "
        "address.|]\n{agent} {agentlast}".replace("{cover}", "covered" if int(case.words["months"]) < 24 else
                                                  "no longer covered"))


def policy(case: Case) -> str:
    """Returns a rule of the house and the case measured against it."""
    months, price = int(case.words["months"]), int(case.words["price"])
    covered = "[covered|inside the two years|still covered]" if months < 24 else "[not covered|too old|past two years]"
    costly = "signs for it" if price >= 100 else "decides alone"
    return case.say(
        "[Rule|House rule|What we do]: [a {thing} is covered for two years, that is 24 months.|every {thing} has "
        "24 months of cover.] [A return costs nothing in the first 30 days.|Whoever moves house tells us the new "
        "street.|] A sum of 100 euros or more needs a second signature. [Example|For instance|Case in point]: "
        "{name} of {town} bought a {product} {months} months ago for {price} euros. {months} months: "
        + covered + ". {price} euros: [the agent|{agent}] " + costly + ". [So {mr} was told about order {order}|"
        "We told {mr}, order {order}]: {act}.")


def product_page(case: Case) -> str:
    """Returns a page that sells the product, with questions that buyers ask."""
    return case.say(
        "[The {product}|{product}]\n[The new {brand} is a {thing} for the {room}.|A {thing} that you will like: the "
        "{product}.|"
        "Meet the {brand}, our {colour} {thing}.] [It comes in {colour}.|You can have the {brand} in {colour}.|The "
        "{brand} "
        "weighs little and lasts long.] [The {brand} costs {price} euros.|Price: {price} euros.] [It was made in "
        "{town}.|Our people in {town} build every {brand} by hand.] [{name} designed it.|The idea came from {name}.|]\n"
        "[Can I get the {brand} in another colour?|Is there a {brand} that is not {colour}?] [No, only in {colour}.|At "
        "present the {product} is {colour}.]\n[What if I say: {said}?|What do I do when {said}?] [That is {house}. "
        "Look at "
        "{check}.|We call that {house}. Check {check}, then ask us.]\n[What does the {brand} cost?|How much is it?] "
        "[{price} euros.|You pay {price} euros for the {brand}.]\n[Who can I ask about the {product}?|Who helps me?] "
        "[{agent} in {town}.|Ask for {agent}, our {brand} expert.|{agent} knows every {brand}.]")


def glossary(case: Case) -> str:
    """Returns house words explained by customers' words."""
    return case.say(
        "[When a customer says|If somebody tells you|If you hear|Whoever says] \"{said}\" [or \"{said2}\"|], [we "
        "write|the word is|our word is|put down]: {house}. [Then look at {check}.|First check {check}.|The first thing "
        "to check: {check}.] [{agent} from {town} adds|As {agent} says|Ask {agent} if you are not sure]: [{house} is "
        "common on the {product}.|I had it on a {product} on {date}.|order {order} was such a case.]")
