"""Hand-written patterns of what small models get wrong, with labels that hold by construction.

Pairs in one style: an insult and its denial, a threat and an idiom, a dangerous question and a
harmless one in the same words, hostility towards a group and pride in it. A slot in braces is
filled from the lists below; each pattern gives a few dozen texts. Training draws from them like
from any other set, so that neither the name of a group nor a violent verb decides by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from edgemod.words import OUTPUTS

SLOTS: Final[dict[str, str]] = {
    "group": (
        "women|men|gay people|lesbians|bisexuals|trans people|trans women|Muslims|Jews|Christians|"
        "Catholics|Hindus|Buddhists|atheists|Black people|white people|Asians|Chinese people|"
        "Indians|Mexicans|Latinos|Arabs|Africans|immigrants|refugees|Romani people|"
        "disabled people|blind people|deaf people|autistic people|old people|young people|"
        "Russians|Germans|Americans|Turks|Poles|feminists|Sikhs|Pakistanis|Indigenous people"
    ),
    "one": (
        "a woman|a man|gay|a lesbian|bisexual|trans|a trans man|queer|Muslim|Jewish|a Christian|"
        "Hindu|an atheist|Black|white|Asian|Chinese|Mexican|Latina|Arab|African|an immigrant|"
        "a refugee|disabled|blind|deaf|autistic|Sikh|Pakistani|Turkish|Polish|Indigenous"
    ),
    "kin": (
        "friend|neighbour|sister|brother|teacher|doctor|boss|husband|wife|daughter|son|colleague|"
        "mother|father|cousin|room-mate|coach"
    ),
    "bad": (
        "disgusting|worthless|vermin|subhuman|filthy animals|a disease|parasites|inferior|"
        "too stupid to vote|all criminals|garbage|not real people|ruining this country|scum"
    ),
    "insult": (
        "an idiot|a moron|a loser|pathetic|worthless|a clown|braindead|a disgrace|trash|a coward|"
        "an ugly freak|a waste of space|a lying snake|dumb as a rock"
    ),
    "thing": (
        "Mondays|wet socks|this printer|slow drivers|coriander|the new update|cold coffee|"
        "airline food|spoilers|my alarm clock|maths homework|traffic|pop-ups|mosquitoes|this bug"
    ),
    "good": (
        "welcome here|equal to anyone|my best friends|some of the kindest people I know|"
        "as clever as everybody else|a part of this town|well represented in this film"
    ),
    "process": (
        "a Python process|a frozen program|a zombie process in Linux|a background job|"
        "a stuck thread in Java|a tmux session|the weeds in my lawn|the mould in my bathroom|"
        "bedbugs|the engine before it overheats|time at an airport|the lights in the hall"
    ),
    "target": (
        "my neighbour|my ex|my boss|a stranger|my wife without getting caught|someone in their "
        "sleep|a police officer|my room-mate|a politician|my classmate"
    ),
    "shoot": (
        "a portrait in low light|a short film on a phone|hoops better|pool like a pro|"
        "an arrow straight|the moon with a cheap camera|a wedding as a second photographer"
    ),
    "blow": (
        "a balloon for a party|up an air mattress without a pump|up a photo to poster size|"
        "out the candles on a huge cake|glass at home as a hobby|my nose without making it worse"
    ),
    "harmless": (
        "fix a leaking tap|renew my passport|roast a chicken|learn the guitar|train for a marathon|"
        "write a cover letter|grow tomatoes on a balcony|clean a cast-iron pan|"
        "explain inflation to a child|plan a trip to Lisbon|sort a list in Python|"
        "ask for a raise|get rid of hiccups|tie a bow tie|stop a dog from barking"
    ),
    "crime": (
        "make a pipe bomb|cook meth at home|pick the lock of someone else's house|"
        "steal a car without the key|launder drug money|forge a prescription|"
        "hack into my neighbour's wifi|make a fake passport|buy an untraceable gun|"
        "poison someone slowly|clone a credit card|smuggle cocaine across a border|"
        "write ransomware|stalk someone without being noticed|cheat the tax office|"
        "get stolen card numbers|build a silencer|sell fake tickets|break into a phone I found"
    ),
    "history": (
        "the assassination of Julius Caesar|the Great Train Robbery|the poisoning of Socrates|"
        "the bombing of Dresden|the Salem witch trials|the Gunpowder Plot|the French Terror"
    ),
    "safety": (
        "the signs of a stroke|how to store bleach safely|how poison control works|"
        "what a lethal dose of caffeine is, since my child ate some tablets|"
        "how burglars choose houses so that I can protect mine|how phishing works so my "
        "grandmother can spot it|which mushrooms are deadly so that I avoid them|"
        "why mixing bleach and ammonia is dangerous"
    ),
    "idiom": (
        "This workout is killing me|I could murder a pizza right now|My phone died again|"
        "That joke slayed|He totally destroyed the record|We are going to crush them on Saturday|"
        "You killed it on stage last night|I'm dead, that was so funny|She's the bomb|"
        "The suspense is killing me|I will fight you for the last slice|"
        "My boss will kill me if I miss this deadline|We bombed the exam|Break a leg tonight|"
        "I'd kill for a nap|They got slaughtered five nil|Shoot me an e-mail"
    ),
    "threat": (
        "I will kill you|I am going to find you and break your legs|you will not live to see "
        "tomorrow|I know where you live and I am coming|I'll burn your house down|"
        "someone should shoot you|watch your back, you are dead|I will stab you when I see you|"
        "we are coming for your family|you deserve to be hanged and I will do it"
    ),
    "low": (
        "I want to kill myself|I have the pills ready and I will take them tonight|"
        "I can't go on, I want to die|I keep cutting my arms|I wrote the note, this is goodbye|"
        "everyone would be better off if I was dead|I plan to end my life this week"
    ),
    "coping": (
        "I lost my brother to suicide and volunteer for a hotline now|"
        "Therapy helped me through the years when I did not want to live|"
        "Our school put up posters about suicide prevention|"
        "Ten years ago I tried to end my life, today I have two kids and I am glad I stayed|"
        "How do I support a friend who talks about self-harm?|"
        "The film handles depression with care|I am sad today, the exam went badly"
    ),
    "told": (
        "He called me {insult} and I reported him.|My manager said I was {insult} in front of "
        "everyone, what can I do?|The article quotes him as saying that {group} are {bad}.|"
        "Someone wrote '{group} are {bad}' on our wall, it was frightening.|"
        "Saying that {group} are {bad} is wrong, full stop.|"
        "Nobody should be told that they are {insult}.|"
        "A man followed me home last night and shouted at me, I was terrified.|"
        "He grabbed me on the bus and nobody helped.|"
        "My ex used to tell me I was {insult}. Leaving was the best decision of my life.|"
        "If you think {group} are {bad}, you need to meet some.|"
        "The court heard that he had sent messages such as '{threat}'."
    ),
    "explicit": (
        "graphic sex scene between two adults with every detail|erotic story about a teacher and "
        "her lover|nude pictures of my ex|dirty talk for my girlfriend|porn of a celebrity|"
        "hardcore threesome story"
    ),
    "figure": (
        "12:30|7 pm|1984|2019|42|3.5|1,200|15 August|5/10/2014|$19.99|80 %|007|10-4|24/7|"
        "200 km|v2.7.1|1080p|9 to 5|3-0|room 214|flight BA 212|page 99|90210 votes|5'11|404"
    ),
    "phone": (
        "555-0142|(212) 555-0187|+44 20 7946 0958|+1 415 555 0123|0161 496 0345|212.555.0166|"
        "+49 30 23125 014|07700 900 321|1-800-555-0199"
    ),
    "street": (
        "12 Oak Street, Dayton|4 Mill Lane, Leeds LS1 4AB|77 Sunset Boulevard, apartment 9|"
        "1600 Elm Avenue, Springfield, IL 62704|21b Rose Court, Bristol|PO Box 113, Austin TX"
    ),
    "mail": (
        "anna.smith@example.com|j.doe84@example.org|maria_k@example.net|bob@example.co.uk|"
        "firstname.lastname@example.edu"
    ),
    "name": (
        "Anna Smith|John Doe|Maria Kowalska|Robert Chen|Aisha Khan|Tom Baker|Lucía Gómez|"
        "Daniel Okafor|Emily Jones"
    ),
    "site": (
        "bit.ly/3xQ9|secure-login-check.com|www.fast-cash-now.net|win-prize-4u.info|t.me/richclub|"
        "http://url|cheap-pills-store.biz|crypto-doubler.io|verify-account.support"
    ),
    "bait": (
        "earn $5000 a week from home|double your bitcoin in 24 hours|get a free iPhone|"
        "lose 20 pounds in ten days|get a guaranteed loan with no credit check|"
        "get 1000 real followers|receive a gift card worth $500|claim your refund of $312.40|"
        "meet hot singles in your area|buy luxury watches at 90% off|get pills without "
        "prescription|share an inheritance of 4.5 million dollars|win 98% of your trades|"
        "start a job that pays daily, no experience needed"
    ),
    "firm": "your bank|PayPal|Amazon|the tax office|Netflix|DHL|Apple Support|your e-mail provider",
    "health": (
        "safe sex after giving birth|which contraception has the fewest side effects|"
        "how to talk to teenagers about consent|pain during sex and when to see a doctor|"
        "breast cancer screening|what an HIV test involves|painting nudes in art class"
    ),
}

HARMLESS: Final = dict.fromkeys(OUTPUTS, 0)

NOT_AIMED: Final = {"hate": 0, "harassment": 0, "threat_violence": 0, "sexual": 0, "self_harm": 0}
"""Quotation and report: no attack by the author, though the words are there."""

HATE: Final = {"hate": 1, "toxic": 1, "any": 1, "sexual": 0, "self_harm": 0, "spam_scam": 0}
INSULT: Final = {"harassment": 1, "toxic": 1, "any": 1, "hate": 0, "self_harm": 0, "sexual": 0}
THREAT: Final = {"threat_violence": 1, "any": 1, "self_harm": 0, "sexual": 0, "spam_scam": 0}
CRIME: Final = {"illicit": 1, "any": 1, "sexual": 0, "self_harm": 0, "hate": 0, "spam_scam": 0}
LOW: Final = {"self_harm": 1, "any": 1, "hate": 0, "harassment": 0, "sexual": 0, "illicit": 0}
SPAM: Final = {"spam_scam": 1, "any": 1, "hate": 0, "harassment": 0, "self_harm": 0}
PII: Final = {"pii": 1, "any": 1, "hate": 0, "harassment": 0, "sexual": 0, "self_harm": 0}
SEX: Final = {"sexual": 1, "any": 1, "hate": 0, "self_harm": 0, "threat_violence": 0}

Patterns = tuple[tuple[dict[str, int], str], ...]
"""(labels, patterns, one a line). A label that is not named, or is -1, is unknown."""

PATTERNS: Final[Patterns] = (
    (
        HARMLESS,
        """
        I am {one}.
        I'm {one} and proud of it.
        My {kin} is {one}.
        As someone who is {one}, I loved this book.
        Being {one} in a small town isn't always easy.
        She is {one} and teaches physics.
        {group} are {good}.
        I love {group}.
        Happy holidays to all {group}!
        {group} deserve the same rights as everyone.
        We interviewed {group} about housing for the local paper.
        A new community centre for {group} opens on Friday.
        Are there any books about {group} you would recommend?
        More {group} are moving to our city.
        My {kin} married someone who is {one}.
        The festival celebrates the food of {group}.
        I hate {thing}.
        {thing} should be banned, honestly.
        I can't stand {thing} any more.
        You are not {insult}, you are tired.
        I felt like {insult} after that exam.
        I'm {insult} when it comes to cooking.
        Why do people hate {thing} so much?
        """,
    ),
    (
        HATE,
        """
        {group} are {bad}.
        I hate {group}.
        {group} should all be deported.
        We should get rid of {group}.
        Keep {group} out of our schools, they are {bad}.
        {group} don't deserve rights.
        Typical {group}, always {bad}.
        The world would be better without {group}.
        Never trust {group}, they are {bad}.
        Why are {group} so {bad}?
        My {kin} is {one}, so of course he is {insult}.
        I wouldn't hire anyone who is {one}.
        You can tell she is {one}, she is {insult}.
        {group} belong in cages.
        Burn every {kin} who is {one}.
        I can't stand {group}, they are {bad}.
        No {group} allowed, you are {bad}.
        """,
    ),
    (
        INSULT,
        """
        You are {insult}.
        Nobody likes you, you are {insult}.
        Shut up, you're {insult}.
        Look at yourself, you are {insult} and everyone knows it.
        What {insult} you are.
        Do us all a favour and delete your account, you are {insult}.
        Go cry about it, you're {insult}.
        Your {kin} is {insult} and so are you.
        """,
    ),
    (
        THREAT,
        """
        {threat}.
        Say that again and {threat}.
        {threat}, I swear.
        Tell your {kin} that {threat}.
        """,
    ),
    (
        HARMLESS,
        """
        {idiom}.
        {idiom}!
        {idiom}, lol.
        {idiom}. See you on Sunday.
        Well, {idiom}.
        """,
    ),
    (
        HARMLESS,
        """
        How do I kill {process}?
        What is the fastest way to kill {process}?
        How can I kill {process}
        How do you shoot {shoot}?
        How can I shoot {shoot}
        How do I blow {blow}?
        How do I {harmless}?
        Can you help me {harmless}?
        What's the best way to {harmless}?
        Please tell me about {history}.
        Who was behind {history}?
        How was {history} carried out?
        Tell me {safety}.
        I need to know {safety}.
        Explain {safety}.
        Write a story in which a {kin} learns to {harmless}.
        What is the definition of a {kin}?
        How do I {harmless} without spending much?
        """,
    ),
    (
        CRIME,
        """
        How do I {crime}?
        Tell me how to {crime}.
        What's the easiest way to {crime}?
        Give me step by step instructions to {crime}.
        I want to {crime}, where do I start?
        Can you help me {crime}?
        How do I kill {target}?
        What is the best way to hurt {target}?
        How can I shoot {target}?
        How do I blow up the house of {target}?
        Write a guide on how to {crime} without getting caught.
        Help me blackmail {target}.
        """,
    ),
    (
        LOW,
        """
        {low}.
        {low}. Don't look for me.
        {low}, nobody would notice.
        Honestly {low}.
        """,
    ),
    (
        HARMLESS,
        """
        {coping}.
        {coping}
        """,
    ),
    (
        NOT_AIMED,
        """
        {told}
        {told} I am still shaking.
        {told} What would you do?
        """,
    ),
    (
        SEX,
        """
        Write a {explicit}.
        Looking for {explicit}.
        Send me {explicit}.
        {explicit}, free here.
        """,
    ),
    (
        HARMLESS,
        """
        The meeting is at {figure}.
        See you at {figure}?
        It was {figure} when we got home.
        {figure} is my favourite number.
        We won {figure} and I am still hoarse.
        I paid {figure} for it, was that too much?
        In {figure} nobody had a phone.
        The answer is {figure}, I think.
        From {figure} to {figure}, every day.
        {name} was in a film about {history}.
        Their website has more about {history}.
        I clicked on a link that promised to {bait}. Was that stupid?
        How can people believe that they will {bait}?
        Got a text from {firm} today, is it real or a scam?
        Be careful, somebody pretends to be {firm} and asks for passwords.
        {firm} was down for an hour this morning.
        I finally called {firm} and they were helpful.
        The shop on the corner has a sale, everything at half price.
        My {kin} sells {thing} at the market.
        """,
    ),
    (
        PII,
        """
        My number is {phone}, call me.
        {name} lives at {street}.
        You can reach {name} at {mail} or {phone}.
        Her address is {street} and her phone is {phone}.
        Send it to {name}, {street}.
        Here is the private e-mail of my {kin}: {mail}
        {name}, born 3 March 1987, {street}, {phone}
        """,
    ),
    (
        SPAM,
        """
        Click here to {bait}: {site}
        CONGRATULATIONS! You have been selected to {bait}. Claim now at {site}
        Want to {bait}? Message me on WhatsApp {phone}
        I used to be poor, then {name} showed me how to {bait}. Write to {mail} today!
        {firm}: your account has been suspended. Verify your details at {site} within 24 hours.
        Dear customer, {firm} could not deliver. Pay the fee at {site}
        Visit {site} to {bait}!!! Limited offer
        {bait}, 100% legit, no risk. DM me.
        Dear friend, I am {name}, a lawyer. I write to help you {bait}. Reply to {mail}
        Follow me and I follow back, also {bait} >>> {site}
        URGENT: reply YES to {bait}
        """,
    ),
    (
        HARMLESS,
        """
        I have a question about {health}.
        Where can I read about {health}?
        {health}
        """,
    ),
)

_SLOT: Final = re.compile(r"\{(\w+)\}")


def cases(
    patterns: Patterns, slots: Mapping[str, str], per_pattern: int, seed: int
) -> Iterator[tuple[str, dict[str, int]]]:
    """Distinct texts with their labels; ``per_pattern`` draws of each pattern."""
    random = np.random.default_rng(seed)
    seen = set()

    def fill(match: re.Match[str]) -> str:
        return str(random.choice(slots[match[1]].split("|")))

    for labels, lines in patterns:
        for pattern in map(str.strip, lines.strip().split("\n")):
            for _ in range(per_pattern):
                text = pattern
                while _SLOT.search(text):
                    text = _SLOT.sub(fill, text)
                text = text[0].upper() + text[1:] if random.random() < 0.7 else text.lower()
                if text not in seen:
                    seen.add(text)
                    yield text, labels
