"""The words of the embedded world: what goes wrong, what is said about it, and what the house calls it.

Everything here is plain data, written for this project. A customer never uses the house's words and the house
never repeats the customer's: that gap is what the summarization task asks an adapter to bridge. Every `said` is
an independent clause in the customer's mouth, every `house` a noun phrase that fits after "reported" or "about".
"""

# A row is one line, however long: it is read as a table.
# ruff: noqa: E501

from dataclasses import dataclass


@dataclass(frozen=True)
class Issue:
    """One kind of trouble: its family, the house's name for it, how customers say it, what an agent checks."""

    family: str
    house: str
    said: tuple[str, ...]
    check: str


@dataclass(frozen=True)
class Deed:
    """One thing done, promised or wanted: as it is spoken and as the house notes it."""

    said: str
    noted: str


# Which groups of faults a product can have.
THINGS: dict[str, tuple[str, ...]] = {
    "kettle": ("heat", "water", "body"), "toaster": ("heat", "body"), "blender": ("motor", "body"),
    "lamp": ("battery", "body"), "heater": ("heat", "radio"), "fan": ("motor", "body"),
    "vacuum cleaner": ("motor", "battery"), "coffee machine": ("heat", "water"), "headset": ("sound", "battery"),
    "speaker": ("sound", "radio"), "doorbell": ("radio", "battery"), "camera": ("battery", "screen"),
    "thermostat": ("screen", "radio"), "router": ("radio", "body"), "printer": ("radio", "screen"),
    "monitor": ("screen", "body"), "tablet": ("screen", "battery"), "scooter": ("motor", "battery"),
    "drill": ("motor", "battery"), "mower": ("motor", "body"), "washing machine": ("water", "motor"),
    "dishwasher": ("water", "body"), "oven": ("heat", "screen"), "iron": ("heat", "water"),
    "radio": ("sound", "body"), "watch": ("screen", "battery"),
}

# family | the house's name | what the agent checks | what customers say; ...
_FAULTS = """
battery|rapid battery drain|the age of the battery|the battery is empty by noon;it goes flat after an hour;it hardly lasts a morning on a full charge;I have to charge it three times a day
battery|a charging failure|the charging cable|it will not charge at all;I plug it in and nothing happens;the charging light never comes on;it stays empty however long I leave it plugged in
battery|overheating on the charger|the charger|it gets too hot to touch when I plug it in;it is as hot as a stove on the charger;the charger burns my fingers;it nearly melts the table while it charges
battery|sudden shutdown|the battery contacts|it switches itself off without warning;it just dies in the middle of everything;it goes off whenever it likes;one moment it works and the next it is off
heat|a heating failure|the plug and the heating plate|it stays cold;it never gets warm;nothing gets hot however long I wait;I switch it on and it stays as cold as stone
heat|uneven heating|the setting of the dial|one side burns and the other stays cold;half of it gets hot and half does not;it is black on the left and pale on the right;only the back of it gets warm
heat|a burning smell|the inside for melted parts|it smells of burnt plastic;there is a nasty smell as if something burns;the whole room smells of smoke when it is on;it stinks like an old fire
heat|a tripped fuse|the fuse box|all the lights go out when I turn it on;the power goes in the whole flat;it knocks out the power every time;I sit in the dark as soon as I start it
water|a leak at the base|the seal|there is a puddle under it every morning;water drips out of the bottom;it wets the whole floor;I have to keep a towel under it
water|a blocked drain|the filter|the water will not run out;it stands there full of dirty water;the water just stays in it;I have to empty it with a cup
water|lime build-up|the hardness of the water|there are white flakes in the water;it is full of white crust;something white and hard grows inside;the inside looks as if it had snowed
water|weak water flow|the water tap|only a few drops come out;it takes ages to fill;the water comes out as slow as honey;hardly any water gets through
motor|bearing noise|the wheel and its bearing|it screams as soon as it starts;it howls like a wolf;it is so loud that the dog hides;it makes a noise like a train
motor|loss of motor power|the motor brushes|it has no strength any more;it gets weaker every day;it gives up at the smallest task;it turns as slowly as an old mill
motor|strong vibration|the feet and the balance|it shakes so much that it walks across the floor;it jumps about like a goat;it trembles until things fall off the shelf;my hands go numb from the shaking
motor|a jammed drive|the drive belt|it is stuck and only hums;nothing turns any more;it hums but does not move;it tries to start and then stops dead
screen|a blank display|the display cable|the screen stays black;I see nothing on it at all;there is no picture any more;it lights up for a second and then shows nothing
screen|a flickering display|the brightness setting|the picture jumps up and down;the screen blinks like a broken sign;the picture shakes all the time;it flashes until my eyes hurt
screen|a dead touch panel|the glass for dirt|it does not notice my finger;I can press the glass as hard as I like;I tap and tap and nothing changes;it ignores my hand
screen|a faded display|the contrast setting|I can hardly read the numbers on it;everything on it is grey and pale;the letters on it are almost gone;I need a torch to read it
radio|a dropped connection|the distance to the network box|it loses the network every few minutes;it keeps falling off the internet;it goes offline all the time;the signal comes and goes
radio|a pairing failure|the pairing code|my phone cannot find it;it will not talk to my phone;the app looks for it and finds nothing;my phone says that it does not exist
radio|a stalled update|the software version|it is stuck at the same update page;the update never ends;it has been loading new software for hours;it says please wait and I have waited all day
radio|a wrong clock setting|the time zone|it thinks that it is the middle of the night;it is three hours wrong;it shows last year's date;it wakes us at two in the morning
sound|a crackling sound|the sound cable|it crackles like dry wood;there is a scratching noise in every song;it sounds as if someone eats crisps;it hisses and spits
sound|a silent channel|the left and right balance|I hear nothing on the left side;one side is quiet;only the right half plays;my left ear gets no music at all
sound|a stuck volume|the volume wheel|it is always at full volume;I cannot make it any quieter;it only whispers whatever I do;the volume does not change when I turn it
body|a broken handle|the handle screws|the handle came off in my hand;I cannot hold it any more because the grip snapped;the grip broke in two;it has nothing left to carry it by
body|a cracked casing|the casing|there is a long split down the side;the outside has burst open;a piece of the shell fell off;I can see right into it through a gap
body|a stuck button|the power button|I cannot press the switch;the switch will not move;I press and it does not go in;the switch stays down for ever
body|a loose hinge|the hinge|the lid wobbles;the lid will not stay shut;the lid hangs at an angle;the lid falls open by itself
"""

_SERVICES = """
delivery|a late parcel|the tracking page|it should have been here days ago;I am still waiting for it;it has not come yet;the parcel is nowhere to be seen
delivery|a parcel at the wrong door|the driver's photo|the driver left it with people I do not know;someone else in the street has got it;it went to another house;it was put down at a stranger's door
delivery|a parcel sent back|the address on the label|it went back to you before I could get it;it was on its way and then turned round;the driver took it away again;it never waited for me at the post office
contents|the wrong colour|the packing list|I asked for a different colour;it is not the colour that I picked;it does not match the colour on my order;the colour is all wrong
contents|a missing part|the packing list|there was a piece missing in the box;I found no cable in the box;one bag of screws was not there;half of what should be in the box is not there
contents|the wrong model|the number on the box|this is not the one that I ordered;you sent me a smaller one;I got a different one from the one in the picture;somebody packed another one
contents|transit damage|the photos of the box|it arrived in pieces;the box was crushed and so is it;it was broken before I opened it;it came with a big dent in it
billing|a double charge|the list of payments|I paid twice for it;the money was taken two times;it is on my bank page two times;you took the same sum again
billing|an overdue refund|the refund list|I sent it back and have not seen my money;you still owe me the money;my money has not come back;I am waiting for my money
billing|a wrong invoice|the billing name|the bill has the wrong name on it;there is a mistake on my bill;the bill does not show my firm;my bill is made out to somebody else
billing|an unapplied discount|the terms of the code|my code took nothing off;I paid the full price in spite of my voucher;the voucher did not work;the ten per cent were never taken off
account|a locked account|the customer's identity|I cannot get into my page any more;it tells me that I tried too often;the page will not let me in;I am shut out of my own page
account|an outdated address|the customer's identity|I have moved and you still have my old street;my letters go to my old flat;I live somewhere else now;you still write to my old house
account|an unwanted newsletter|the mail settings|I get three of your mails a day;your offers fill my whole day;my inbox is full of your offers;I never asked for all these mails
visit|a missed visit|the technician's calendar|nobody came to look at it;I sat at home all day for nothing;your man did not turn up;I took a day off and no one rang
visit|a request for a new date|the technician's calendar|I am not at home on the day you gave me;the day does not suit me;I would rather have you here on another day;something came up on the day of the visit
return|a change of mind|the date of purchase|I do not want it after all;I have decided that I can live without it;I thought about it and I would rather not keep it;I no longer need it
return|an unsuitable size|the measurements|it is too big for my shelf;it does not fit under the window;it takes up half the room;it is too wide for the corner
guarantee|a lost guarantee card|the purchase in the books|I cannot find the paper that came with it;the card went out with the rubbish;I have no papers left for it;I lost the little card
guarantee|a guarantee extension|the age of the purchase|I would like to be covered for longer;I would pay for another year of cover;I want to be safe for a few more years;I would like more years on it
"""

# family | spoken | noted
_ACTIONS = """
fault|I am sending you a new one|arranged a replacement
fault|our workshop will mend it for nothing|ordered a free workshop repair
fault|someone from our team will come to your home|booked a home visit
fault|I am posting you the part that you need|sent a spare part
fault|please hold the power button down for ten seconds, and then start it again|guided a restart
fault|I can give you back a part of the price|granted a price cut
fault|you will get all of your money back|approved a full refund
fault|I have asked our engineers to think about it|passed the case to engineering
fault|I can lend you another one in the meantime|lent out a spare device
delivery|I have asked the courier to look for it|started a courier search
delivery|I am sending a second parcel today|sent a second parcel
delivery|the driver will try again|ordered another delivery attempt
delivery|you will not pay for the delivery|waived the delivery fee
delivery|I have told the depot to keep it for you|had the parcel held at the depot
contents|the right one leaves our store tonight|sent out the right item
contents|I am putting what you need in the post|posted the missing piece
contents|you may keep it and pay only half|offered half price
contents|you can swap it in our shop|agreed to a swap in the shop
billing|I have stopped one of the payments|cancelled a payment
billing|I have asked our bank desk to pay it out today|ordered a payout
billing|I am writing the bill again|reissued the invoice
billing|I have taken the sum off by hand|corrected the sum by hand
account|I have opened your page again|restored access
account|I have put the change in our books|updated the records
account|I have sent you a fresh link|mailed a fresh link
visit|I have moved you to another day|moved the appointment
visit|you are now first on our list|gave the visit priority
visit|I am sending our best colleague instead|assigned a senior technician
return|I have sent you a label for the box|issued a return label
return|you get a voucher for the full price|granted shop credit
return|you can hand it in at the shop|agreed to a return in the shop
guarantee|I found the sale in our books, so you are covered|confirmed cover from the books
guarantee|I have added a year for you|added a year of cover
guarantee|I am printing a new card for you|reprinted the card
"""

_NEXT = """
I will call you again on {date}|will call back on {date}
I will send you a text on {date}|will text an update on {date}
the courier will be at your door on {date}|the courier calls on {date}
it should be with you on {date}|arrival is planned for {date}
please send me a photo of it by {date}|a photo is due by {date}
please show the receipt at our shop by {date}|the receipt must be shown by {date}
the {price} euros will be on your card by {date}|{price} euros go back by {date}
we will be there on {date} at {hour}|the meeting is set for {date} at {hour}
you will find a letter from us in your post by {date}|a letter follows by {date}
my colleague {colleague} will look after you from {date}|{colleague} takes over on {date}
write to me if nothing has happened by {date}|a reminder is allowed after {date}
we will close the case on {date} unless you tell us not to|the case closes on {date}
{colleague} from our store will check it on {date}|{colleague} inspects it on {date}
you will hear from {colleague} by {date}|{colleague} will write by {date}
"""

_WISHES = """
please write to me, because I work at night|prefers written contact
my neighbour {friend} can take parcels for me|neighbour {friend} may accept parcels
it was a present from my sister {friend}|the item was a gift from {friend}
please speak to my son {friend} if I am out|son {friend} may speak for the customer
I am away until {day}|away until {day}
I cannot come to the shop without a car|cannot visit the shop
I have bought from you for twenty years|a customer of twenty years
please ring only after {hour}|calls only after {hour}
the bell is broken, so please knock|the visitor must knock
I need it for a party on {day}|needed for a party on {day}
my daughter {friend} chose it for me|daughter {friend} chose it
my old aunt {friend} cannot do without it|aunt {friend} depends on it
"""

_SINCE = """
since Monday|since Monday
since last Friday|since Friday
since the weekend|since the weekend
for about two weeks now|for two weeks
for almost a month|for a month
for three days now|for three days
ever since we moved house|since a house move
right from the first day|from day one
since the storm last week|since a storm
since my son dropped it|since a fall
since I cleaned it|since a cleaning
since the spring|since spring
since yesterday morning|since yesterday
for half a year|for six months
since we came back from our holiday|since a holiday
since the last update|since an update
"""


def _rows(block: str) -> list[list[str]]:
    return [line.split("|") for line in block.strip().splitlines()]


def _issues(block: str) -> tuple[Issue, ...]:
    return tuple(Issue(family, house, tuple(said.split(";")), check) for family, house, check, said in _rows(block))


def _deeds(block: str) -> tuple[Deed, ...]:
    return tuple(Deed(said, noted) for said, noted in _rows(block))


FAULTS = _issues(_FAULTS)
SERVICES = _issues(_SERVICES)
ACTIONS: dict[str, tuple[Deed, ...]] = {}
for _family, _said, _noted in _rows(_ACTIONS):
    ACTIONS[_family] = (*ACTIONS.get(_family, ()), Deed(_said, _noted))
NEXT = _deeds(_NEXT)
WISHES = _deeds(_WISHES)
SINCE = _deeds(_SINCE)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")
COLOURS = ("red", "blue", "green", "white", "black", "grey", "yellow", "brown", "silver", "cream")
ROOMS = ("kitchen", "office", "bedroom", "garage", "cellar", "living room", "workshop", "hall", "summer house")
