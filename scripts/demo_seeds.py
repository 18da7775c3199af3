"""Hand-written seeds of the demo: sentences with {slots}, by register and by category.

Written for this project; no text is taken from anywhere. ``*word*`` marks what somebody who
writes around a filter would disguise. Names, handles, addresses and numbers are made up or come
from the ranges kept for examples (RFC 2606 and 5737, 555-01xx, payment test cards).
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SLOTS: Final[dict[str, tuple[str, ...]]] = {
    "name": _words(
        "Aisha Ben Carla Dmitri Elena Femi Grace Hugo Ines Jonas Kofi Lena Marcus Nadia Omar "
        "Priya Quentin Rosa Sven Tariq Uma Viktor Wendy Yusuf Zoe"
    ),
    "handle": _words(
        "@nightowl77 @mika_draws @tobi.fm @quietstorm @rae_runs @pixelpete @greta_k @zerolag "
        "@sam_codes @oldmanriver @the_real_jo @kitkatie"
    ),
    "game": (
        "Starfall", "Dungeon Relay", "Kart Legends", "Hollow Harbor", "Siege Online",
        "Orbital 9", "the ranked ladder", "Mistwood", "the new expansion",
    ),
    "boss": (
        "the swamp king", "the final boss", "that clockwork dragon", "phase three",
        "the twins on hard mode", "the frost giant",
    ),
    "team": (
        "the Rovers", "City", "the Hawks", "our under-15s", "the Bulls", "United", "the Comets",
        "the national side",
    ),
    "dish": (
        "lentil soup", "banana bread", "pad thai", "shakshuka", "roast chicken", "ramen",
        "sourdough", "vegetable curry", "apple pie", "jollof rice", "pierogi", "fish tacos",
    ),
    "ingredient": (
        "garlic", "smoked paprika", "butter", "lime juice", "fresh basil", "cumin", "soy sauce",
        "a pinch of salt", "brown sugar", "chilli flakes", "yoghurt",
    ),
    "product": (
        "the headphones", "my router", "the standing desk", "the blender", "this phone case",
        "the smart lamp", "the coffee grinder", "my subscription", "the winter jacket",
        "the keyboard",
    ),
    "place": (
        "the station", "the library", "the gym", "the market", "school", "the office",
        "the car park", "the park on Mill Road", "the bus stop", "the arena",
    ),
    "city": (
        "Leeds", "Porto", "Ghent", "Lagos", "Denver", "Osaka", "Gdansk", "Nairobi", "Bergen",
        "Lyon", "Adelaide", "Halifax",
    ),
    "day": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday tomorrow tonight"),
    "time": ("at 9", "around noon", "after lunch", "by five", "at half past six", "in the evening"),
    "relative": (
        "my sister", "my dad", "our youngest", "my gran", "my cousin", "my brother in law",
        "my wife", "my husband", "my niece", "the twins",
    ),
    "pet": ("the cat", "our dog", "the rabbit", "the puppy", "my parrot", "the old hound"),
    "language": _words("Python Rust Go TypeScript Kotlin SQL C Haskell"),
    "code": (
        "the parser", "the build", "the login handler", "the cache", "my unit tests",
        "the migration", "the date picker", "the retry loop", "the CI job",
    ),
    "error": (
        "a segfault", "a null pointer", "error 502", "an off by one", "a deadlock",
        "a permission denied", "a timeout", "a circular import",
    ),
    "topic": (
        "the budget", "the new bus lanes", "the school merger", "the election", "the heat wave",
        "the rail strike", "the housing plan", "the flood defences",
    ),
    "show": (
        "the season finale", "episode four", "that documentary", "the reboot", "the podcast",
        "her new album", "the second book", "the concert",
    ),
    "feeling": (
        "really good", "a bit off", "so much better", "kind of weird", "pretty solid", "underrated",
        "not worth the money", "perfect", "disappointing", "fine I guess",
    ),
    "number": tuple(str(n) for n in range(2, 41)),
    "order": tuple(f"{n:06d}" for n in range(104_117, 999_999, 31_337)),
    "percent": ("5", "12", "20", "30", "50", "75"),
    "price": ("$20", "$49", "$99.99", "15 euros", "£30", "$250", "80 bucks"),
    "url": (
        "http://win-now.example/claim", "https://fast-cash.example/r/88", "www.best-pills.example",
        "https://secure-login.example/verify", "http://bit.example/x7q", "https://crypto-up.example",
    ),
    "link": (
        "https://docs.example.org/start", "https://photos.example.net/a/12",
        "https://news.example.com/local", "https://wiki.example.org/Bread",
    ),
    "bank": ("First Harbor Bank", "your bank", "PayQuick", "the tax office", "Parcel Express"),
    "prize": ("a new phone", "a $500 gift card", "a cruise", "a brand new car", "2 BTC"),
    "coin": ("BTC", "ETH", "this token", "MoonCoin"),
    "group": (
        "immigrants", "Muslims", "Jews", "gay people", "women", "refugees", "Black people",
        "disabled people", "trans people", "Roma", "Asians", "Christians",
    ),
    "insult": ("idiot", "moron", "loser", "clown", "idiots", "dumbass"),
    "email": ("j.doe@example.com", "maria.k@example.org", "sven77@example.net", "t.w@example.com"),
    "phone": tuple(f"+1 202 555 01{n:02d}" for n in range(10, 60, 7)),
    "street": ("14 Elm Street", "221 Harbour Road", "9 Mill Lane, flat 3", "77 Station Avenue"),
    "card": ("4242 4242 4242 4242", "5555 5555 5555 4444", "4000056655665556", "378282246310005"),
    "iban": ("GB82 WEST 1234 5698 7654 32", "DE89 3704 0044 0532 0130 00"),
    "drug": ("oxy", "xans", "molly", "coke", "addies"),
    "emoji": ("😂", "🔥", "❤️", "👍", "😅", "🎉", "😭", "🙏", "👀", "🤔"),
}  # fmt: skip

OPENERS: Final = (
    "ok so", "honestly", "quick question:", "update:", "lol", "hey all,", "for what it's worth,",
    "not sure about you but", "edit:", "hi {name},", "{handle}", "wow,", "PSA:", "right,",
    "same here,", "true,", "to be fair", "hmm", "I mean,", "so",
)  # fmt: skip
CLOSERS: Final = (
    "thanks in advance!", "anyone else?", "just my two cents", "cheers", "haha",
    "what do you think?", "{emoji}", "{emoji}{emoji}", "hope that helps", "see you {day}",
    "no rush", "good luck!", "more here {link}", "sorry for the long post", "anyway, back to work",
)  # fmt: skip
BRIEF: Final = (
    "lol", "gg", "same", "this", "thanks!", "first", "ok", "nice one {emoji}", "yes", "no idea",
    "+1", "congrats!!", "following", "welcome {name}", "good point", "see above", "done",
    "nvm fixed it", "brb", "haha", "{emoji}", "agreed", "me too",
)  # fmt: skip

ORDINARY: Final[dict[str, tuple[str, ...]]] = {
    "gaming": (
        "{boss} took me {number} tries but we finally got there.",
        "the patch made {game} feel {feeling}.",
        "looking for two more for {game} {day} {time}, mic not required.",
        "my whole squad wiped because I pressed the wrong key.",
        "is anyone else stuck on a loading screen in {game}?",
        "you can cheese {boss} if you bring enough arrows.",
        "the soundtrack of {game} is {feeling}.",
        "we lost by {number} points and I blame my wifi.",
        "that headshot from across the map was pure luck.",
        "ranked resets on {day}, so push now or wait.",
        "the drop rate is about {percent} percent according to the wiki.",
        "I main support so I never get the loot.",
    ),
    "support": (
        "{product} stopped working after {number} days and I would like a refund.",
        "my order {order} still says processing, it has been {number} days.",
        "thank you, the replacement arrived {day} and it is {feeling}.",
        "how do I change the email address on my account?",
        "the app logs me out every time I open it.",
        "can I return {product} without the box?",
        "your chat agent {name} was very patient with me.",
        "I was charged {price} twice, please have a look.",
        "the discount of {percent} percent did not apply at checkout.",
        "setup was easy, the manual could be clearer though.",
        "where do I find the serial number of {product}?",
    ),
    "recipes": (
        "I add {ingredient} to {dish} and it tastes {feeling}.",
        "let {dish} rest for {number} minutes before you cut it.",
        "you can freeze {dish}, it keeps for {number} weeks.",
        "swap the cream for {ingredient} if you want it lighter.",
        "beat the eggs, whip the cream, then fold in {ingredient}.",
        "my oven runs hot, so I bake {dish} for {number} minutes only.",
        "{relative} swears by {ingredient} in {dish}.",
        "does anyone have a vegan version of {dish}?",
        "burnt the first batch, second one was {feeling}.",
        "slice the onion thin, fry it slowly, then add {ingredient}.",
    ),
    "sports": (
        "{team} defended well but the penalty was soft.",
        "we need a striker, {number} chances and no goal.",
        "ran {number} kilometres before work, legs feel {feeling}.",
        "kickoff is {day} {time}, doors open an hour earlier.",
        "{team} in {city} this weekend, anyone driving?",
        "that referee had a long night.",
        "my shoulder is {feeling} since I changed my swim stroke.",
        "season tickets went up {percent} percent again.",
        "great save in the last minute, what a match.",
        "first time on a climbing wall and I am hooked.",
    ),
    "work": (
        "can we move the review to {day} {time}?",
        "I uploaded the minutes, see {link}.",
        "{name} is out {day}, please send invoices to me instead.",
        "the client liked the draft and wants {number} small changes.",
        "standup is cancelled, post your notes in the channel.",
        "who owns the numbers for {topic}?",
        "reminder: timesheets are due {day}.",
        "the printer on floor {number} is out of toner again.",
        "let's ship it {day} and fix the rest next sprint.",
        "happy to take the late shift if somebody swaps {day}.",
    ),
    "family": (
        "{relative} lost a tooth and is very proud.",
        "{pet} slept on my keyboard all morning.",
        "we are visiting {relative} in {city} {day}.",
        "does anyone know a good dentist near {place}?",
        "{relative} turned {number} and wanted {dish} instead of cake.",
        "we finally painted the kitchen, it looks {feeling}.",
        "{pet} is scared of the vacuum cleaner.",
        "looking for a pram, used is fine, can collect {day}.",
        "my tomatoes are {feeling} this year.",
        "{relative} passed the driving test {time}!",
    ),
    "code": (
        "{code} fails with {error} on {language} but works locally.",
        "have you tried to kill the process and start {code} again?",
        "the child process never exits, so {code} hangs.",
        "I rewrote {code} in {language} and it is {number} times faster.",
        "please rebase on main, {code} changed {day}.",
        "why does {language} need {number} lines for this?",
        "you can abort the transaction when {error} comes up.",
        "the master branch is now called main.",
        "docs are {feeling}, see {link}.",
        "git bisect pointed to {code}, commit from {day}.",
    ),
    "news": (
        "the council votes on {topic} {day}.",
        "I read the whole report on {topic} and it is {feeling}.",
        "{percent} percent turnout in {city} is lower than I expected.",
        "both sides have a point about {topic}.",
        "the mayor of {city} promised this {number} years ago.",
        "trains to {city} are delayed because of {topic}.",
        "source? {link} says the opposite about {topic}.",
        "the debate on {topic} was mostly about money.",
        "I disagree with the article, {topic} affects tenants most.",
    ),
    "culture": (
        "{show} was {feeling}, the ending surprised me.",
        "no spoilers please, I have not seen {show} yet.",
        "saw them live in {city}, the sound was {feeling}.",
        "I cried twice during {show}.",
        "the book is better than {show}, sorry.",
        "who painted this? I saw it at a museum in {city}.",
        "{name} recommended {show} and I am glad I listened.",
        "queueing {time} for tickets, wish me luck.",
    ),
}
"""Ordinary talk, by channel."""

VIOLATING: Final[dict[str, tuple[str, ...]]] = {
    "hate": (
        "{group} are *vermin* and do not belong in this country.",
        "send all {group} *back* where they came from.",
        "I would never hire {group}, they are all *lazy* *thieves*.",
        "{group} are *subhuman*, everybody knows it.",
        "{city} went downhill the day {group} moved in, *get* *rid* of them.",
        "{group} should not be allowed to vote or have *children*.",
        "typical {group}, *filthy* *liars* the lot of them.",
        "the world would be better without {group}.",
    ),
    "harassment": (
        "{handle} nobody likes you, you *pathetic* *{insult}*.",
        "you are *worthless* {name}, quit before we make you quit.",
        "everyone report {handle} until that *{insult}* deletes the account.",
        "keep crying {name}, we will be in your comments every single day.",
        "look at that *ugly* face {name}, no wonder they left you.",
        "{name} you are a *disgusting* *{insult}* and the whole team laughs at you.",
        "we all know where your little blog is {handle}, let's *ruin* it, boys.",
    ),
    "threat_violence": (
        "I know where you live {name} and I will *hurt* you.",
        "wait until I see you at {place}, you are *dead*.",
        "come to {place} {day} and I will *break* your *legs*.",
        "somebody should *burn* {place} down with all of them inside.",
        "{handle} sleep with one eye open, I am going to *kill* you.",
        "I am bringing a *gun* to {place} {day}, you will see.",
        "people like {name} deserve to be *shot*.",
    ),
    "sexual": (
        "send me *nudes* {handle}, I will pay {price}.",
        "I want you *naked* in my *bed* right now.",
        "hot *singles* in {city}, *sex* tonight, no questions.",
        "my *onlyfans* has the full *porn* video, {price} only.",
        "thinking about your *tits* all day {name}.",
        "I am so *horny*, tell me what you would do to me in bed.",
    ),
    "self_harm": (
        "I want to *kill* *myself*, nobody would notice.",
        "I started *cutting* again last night and I cannot stop.",
        "I have the pills here and I am going to *end* *it* {day}.",
        "goodbye everyone, I do not want to *live* anymore.",
        "every day I think about *suicide*, I am just so tired.",
        "I hate my body, have not *eaten* in {number} days and I will keep *starving* myself.",
    ),
    "spam_scam": (
        "CONGRATULATIONS!! you *won* {prize}! claim it now {url}",
        "{bank}: your account is *suspended*, verify your password at {url}",
        "earn {price} a day from home, no experience, message me on *telegram* {handle}",
        "I turned {price} into 10x with {coin}, ask {handle} how, *guaranteed* profit",
        "cheap *followers* and *likes*, {percent}% off today only {url}",
        "your parcel is held, pay the fee of {price} here: {url}",
        "dear friend, I am a widow with 4.5 million dollars and need your *bank* details",
        "lose {number} kilos in a week with this one *trick* {url}",
    ),
    "illicit": (
        "got *{drug}* and *{drug}*, fast shipping, dm {handle} for the menu",
        "selling *fake* *ids* that scan, {price} each, {number} in stock",
        "anyone know how to make a *bomb* from stuff in the kitchen?",
        "need somebody to *hack* my ex's account, paying {price}",
        "*stolen* *cards* with cvv, {price} for ten, no police",
        "looking for an unregistered *gun* in {city}, cash only",
        "tell me how to *cook* *meth* at home, step by step",
    ),
    "pii": (
        "her address is {street}, {city}, and her number is {phone}.",
        "my card is *{card}*, expiry 11/29, code 123, just charge it.",
        "{name}'s private email is {email} and the password is hunter22.",
        "here is his bank account {iban}, real name {name} Hollis, {street}.",
        "call my boss at home, {phone}, he lives at {street}.",
        "the patient is {name} Brandt, born 12.03.1984, SSN 219-09-9999, diagnosed last week.",
    ),
    "toxic": (
        "this is the dumbest *shit* I have ever read.",
        "shut the *fuck* up already.",
        "what a *garbage* take, you absolute *{insult}*.",
        "only a *{insult}* would like {show}.",
        "*fuck* {game} and *fuck* whoever made it.",
        "are you *stupid* or just pretending?",
        "stop posting this *crap*, you *{insult}*.",
    ),
}
"""Texts that violate a policy, by the category that leads."""

HARD: Final = (
    # Counter-speech
    "calling {group} vermin is disgusting, please stop.",
    "{group} belong here as much as anybody else.",
    "if you think {group} are all criminals, you have not met any.",
    # Quotation and reports
    "> you are worthless {name}\n\nreported. nobody should have to read this.",
    'somebody wrote "go back where you came from" on our door, the police took it down.',
    "mods, this user told {name} to kill himself, please remove the comment.",
    "the article quotes him: 'I will burn it down'. he got {number} months in prison.",
    # Accounts of victims
    "he said he would kill me if I left. I called the helpline and moved to {city}.",
    "I was bullied at school for years, they called me ugly and fat every day.",
    "my attacker was at {place} again, how do I get a restraining order?",
    # Recovery and help
    "{number} months without cutting today, proud of myself.",
    "if you think about suicide please call a helpline, you matter.",
    "I volunteer at a suicide prevention line in {city}, ask me anything.",
    # Figures of speech
    "{boss} killed me {number} times, I will murder that thing {day}.",
    "I could kill for some {dish} right now.",
    "my phone is dying and this queue is killing me.",
    "we got absolutely destroyed by {team}, what a bloodbath.",
    "this bass is sick, {show} was the bomb.",
    "holy crap {name}, that goal was insane!",
    "damn, {dish} with {ingredient} is stupid good.",
    # Words that only look bad
    "breast cancer screening is at {place} {day}, book early.",
    "sex education in schools should start with consent.",
    "the cocktail is called sex on the beach, you need vodka and peach.",
    "shoot me an email {day} and I will send the gun safe manual.",
    "the drug store near {place} has no more cough syrup.",
    "we hit the target, executed the plan and crushed the numbers.",
    "dick and fanny are names in an old children's book.",
    # Business that looks like spam or PII
    "our shop moved to {street}, call {phone} or write to info@example.com.",
    "you won! well, the raffle at {place}, pick up your cake {day}.",
    "free soup at {place} {day}, everybody welcome, {link}",
    # Fiction
    'in my novel the villain says "nobody leaves alive" and locks the door.',
)
"""Texts that are fine and look as if they were not."""

FOREIGN: Final[tuple[tuple[str, str | None], ...]] = (
    ("¿Alguien sabe a qué hora abre {place} el sábado?", None),
    ("Muchas gracias {name}, me ha ayudado un montón.", None),
    ("Der Zug nach {city} hat schon wieder {number} Minuten Verspätung.", None),
    ("Ich habe das Rezept probiert, sehr lecker, danke {name}!", None),
    ("Quelqu'un a une bonne recette de tarte aux pommes pour {day} ?", None),
    ("On se retrouve à {city} vers midi, d'accord ?", None),
    ("Alguém tem um carregador para emprestar? O meu parou ontem.", None),
    ("Il concerto a {city} era bellissimo, ci torno di sicuro.", None),
    ("今日は天気がいいので公園に行きました。", None),
    ("请问这个订单什么时候发货？已经等了{number}天了。", None),
    ("Сегодня отличная погода, поедем в {city} на выходных?", None),
    ("هل يعرف أحد مطعما جيدا بالقرب من المحطة؟", None),
    ("आज का मैच बहुत अच्छा था, मज़ा आ गया।", None),
    ("Eres una *basura* y nadie te quiere, {name}.", "harassment"),
    ("Halt die *Fresse*, du *Idiot*.", "toxic"),
    ("Felicidades, ganaste {prize}, entra en {url}", "spam_scam"),
)
"""Texts in other languages, with the category each violates, or None."""

SUPPORT: Final = (
    ("Hello, {product} arrived broken.", "I am sorry to hear that. What is your order number?"),
    ("It is {order}.", "Thank you, I found it. Would you like a refund or a replacement?"),
    ("A replacement please.", "Done, it ships {day}. Anything else?"),
    ("How long will it take?", "About {number} working days to {city}."),
    ("I was charged {price} twice.", "I see both charges and have reversed one of them."),
    ("Can I change the address?", "Of course, please confirm it in your account settings."),
    ("The app keeps crashing.", "Which version do you see under settings?"),
    ("Version 4.{number}.", "Please update, the fix is in the latest release."),
    ("That worked, thanks!", "You are welcome, have a good day!"),
)
"""Exchanges of a customer ("user") and an agent ("agent")."""

ASSISTANT: Final = (
    ("Write a birthday note for {relative}.", "Happy birthday! May the year bring you joy."),
    ("Make it funnier.", "Happy birthday! You are not old, you are vintage."),
    ("What can I cook with {ingredient} and eggs?", "Try shakshuka, or a simple omelette."),
    ("Explain {error} in {language}.", "It usually means that something is used too early."),
    ("Plan a weekend in {city}.", "Day one: the old town. Day two: a walk by the water."),
    ("Summarise the news on {topic}.", "In short, the vote is {day} and both sides are close."),
    ("How do I politely decline a meeting?", "Thank them, give one reason, offer another time."),
    ("Is {number} minutes enough for {dish}?", "It depends on your oven, check after that."),
)
"""Exchanges of a person ("user") and a chat bot ("assistant")."""

REPLIES: Final = (
    "I cannot help with that.", "Please keep this civil.", "I am going to end this chat now.",
    "I understand that you are upset, but please stop.", "That message breaks our rules.",
    "I am here to listen. If you are in danger, please call your local emergency number.",
)  # fmt: skip
"""What an agent or a bot says to a message that violates a policy."""
