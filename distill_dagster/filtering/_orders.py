"""How a text speaks to the model instead of being material for it, and what it orders the model to say.

The forms are those of prompt-injection collections (Perez and Ribeiro 2022; Greshake et al. 2023), in English, Chinese,
German, French and Spanish. Texts are read in their plain form (`distill_dagster.privacy.plain`) with case folded, so
that full-width letters and zero-width characters hide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from distill_dagster.privacy.plain import plain

#: Longest order that is looked at, in characters, and in words where it is not quoted.
LONGEST, MOST_WORDS = 200, 12


class Sign(NamedTuple):
    """One way of speaking to the model: its weight is how far it alone says so, between 0 and 1."""

    name: str
    weight: float
    pattern: re.Pattern[str]


_RULES_EN = (
    r"(?:instructions?|prompts?|directions|directives|guidelines|guidance|commands?|(?:system )?messages?|rules|"
    r"context|"
    r"constraints|training|programming)"
)
_RULES_DE = r"(?:anweisung|instruktion|vorgabe|regel|befehl|prompt|aufforderung)\w*"
_RULES_FR = r"(?:instructions?|consignes?|directives?|r[eè]gles|ordres|prompts?)"
_RULES_ES = r"(?:instrucci[oó]n(?:es)?|indicaci[oó]n(?:es)?|reglas|[oó]rdenes|directrices|prompts?)"
_OLD_EN = (
    r"(?:all|any|every|previous|prior|above|earlier|preceding|foregoing|former|your|initial|original|other|system)"
)
_TURN = r"(?:^|[\n\r]|[.!?>] )\s*(?:#+ *|\*\*|\[)?"

SIGNS = tuple(
    Sign(name, weight, re.compile(pattern))
    for name, weight, pattern in (
        # "Ignore all previous instructions": the verb, a word that points back or at the model, and its instructions.
        (
            "override",
            0.9,
            r"\b(?:ignore|disregard|forget|override|bypass|skip|drop|do not (?:follow|obey)|don't (?:follow|obey)|"
            r"stop following|pay no attention to)\s+(?:(?:about|of|to|the|these|those|them|and)\s+)*"
            rf"{_OLD_EN}(?:\s+(?:{_OLD_EN}|of|the|these|those|my|and|or))*\s+(?:\w+\s+)?{_RULES_EN}\b",
        ),
        (
            "override",
            0.9,
            r"\b(?:ignore|disregard|forget)\s+(?:everything|anything|all|what)\b.{0,30}?"
            r"\b(?:above|before|told|said so far|previously|earlier|i said|you (?:know|were|have|learned))",
        ),
        (
            "override",
            0.6,
            rf"\b(?:ignore|disregard|forget)\s+(?:the|those|these)\s+(?:\w+\s+)?(?:text|input|question|content|"
            rf"{_RULES_EN})\s+(?:above|before|given|so far)",
        ),
        (
            "override",
            0.7,
            r"\b(?:ignore|disregard|forget|skip)\s+what the (?:developer|system|prompt|administrator|operator)\b",
        ),
        ("override", 0.7, r"\b(?:system|admin|safety|prompt|instruction) override\b"),
        (
            "refuse",
            0.5,
            r"\b(?:do not|don't|never) (?:answer|translate|summari[sz]e|classify) (?:the|this|that) (?:question|text|"
            r"input|request)\b",
        ),
        (
            "override",
            0.9,
            r"(?:忽略|无视|忘记|忘掉|抛开|不要理会|不要遵守|不用管)[^.!?\n]{0,12}?"
            r"(?:指令|指示|提示词|提示|说明|规则|设定|命令|要求|对话)",
        ),
        (
            "override",
            0.9,
            r"\b(?:ignorier\w*|vergiss|vergessen sie|missacht\w*|verwirf)\s+(?:sie\s+)?(?:bitte\s+)?"
            r"(?:(?:alle|s[aä]mtliche|die|deine|ihre|jede|alles|obigen?|vorherigen?|vorigen?|bisherigen?|fr[uü]heren?|"
            r"vorhergehenden?|vorangegangenen?|gegebenen?)\s+)*"
            rf"(?:{_RULES_DE}|(?:was|alles,? was) (?:davor|zuvor|oben|bisher)\w*)",
        ),
        (
            "override",
            0.9,
            r"\b(?:ignore[rsz]?|oublie[rsz]?|ne (?:tiens|tenez) (?:pas|aucun) compte|fais abstraction|"
            r"faites abstraction|ne (?:respecte|suis|suivez|respectez)[rsz]? (?:plus|pas))"
            r"\s+(?:d[e']\s*)?(?:(?:toutes?|tous|les|des|tes|vos|ces)\s+)*"
            rf"{_RULES_FR}(?:\s+(?:et|ou)\s+\w+)?\s+(?:pr[eé]c[eé]dent|ant[eé]rieur|ci-dessus|donn[eé]|initial|"
            rf"syst[eè]me|ci dessus)",
        ),
        (
            "override",
            0.9,
            r"\b(?:ignor[ae]n?|olvid[ae]n?|(?:haz|haga|hagan) caso omiso de|no (?:sigas|siga))\s+"
            r"(?:(?:todas?|todos|las?|los|tus|sus|estas?|cualquier)\s+)*(?:(?:anteriores|previas)\s+)?"
            rf"{_RULES_ES}(?:\s+(?:anterior|previ|de arriba|dad[ao]s|del sistema|inicial)\w*)?|"
            r"\bolvid[ae]n? (?:todo )?lo (?:anterior|que)\b|\boublie[rsz]? (?:tout )?ce qui pr[eé]c[eè]de",
        ),
        # What only a chat format or an API's message has.
        (
            "token",
            0.9,
            r"<\|(?:im_start|im_end|im_sep|system|user|assistant|endoftext|begin_of_text|end_of_text|start_header_id|"
            r"end_header_id|eot_id|eom_id|python_tag|endofprompt|end|start|message|channel)\|>|<\|?(?:user|"
            r"assistant)\|>"
            r"|\[/?inst\]|<</?sys>>|<(?:start|end)_of_turn>|</?s>\s*\[inst\]|\[/?system_prompt\]",
        ),
        (
            "heading",
            0.8,
            r"(?:^|[\n\r])\s*#{2,}\s*(?:system|instructions?|response|assistant|human|new instructions?|"
            r"system (?:prompt|message)|系统|指令|anweisung|consigne|instrucci[oó]n)\s*:?\s*(?=[\n\r]|$|:)",
        ),
        ("message", 0.9, r"[\"']role[\"']\s*:\s*[\"'](?:system|developer|assistant)[\"']"),
        (
            "heading",
            0.8,
            r"```\s*system\b|\[system\]|(?:^|[\n\r])-{3,} ?(?:end|begin) of (?:input|prompt|text|document|data)",
        ),
        ("dialogue", 0.5, r"(?:^|[\n\r])\s*(?:assistant|ai|bot|model):[^\n\r]*[\n\r]+\s*(?:human|user)\s*:"),
        ("turn", 0.4, _TURN + r"(?:system|assistant|developer|系统|系統|助手)\s*(?:message|prompt)?\]?\s*[:：]"),
        (
            "delimiter",
            0.5,
            r"</(?:input|system|user|prompt|instructions?|documents?|context|query|question|passage|data|text)>",
        ),
        ("delimiter", 0.5, r"<(?:system|assistant|instructions?|system_prompt|admin)>"),
        ("code", 0.8, r"__(?:globals|subclasses|class|init|builtins|import)__|\{%\s*(?:set|include|import)\b"),
        # A verdict that no judge gave.
        ("verdict", 0.7, r"\{[^{}]{0,200}[\"'](?:verdict|winner|preferred|chosen|better|mark)[\"']\s*:[^{}]{0,200}\}"),
        ("verdict", 0.5, r"\{\s*[\"'](?:score|scores|rating|ratings|critique)[\"']\s*:[^{}]{0,200}\}"),
        (
            "grade",
            0.7,
            r"\b(?:rate|score|grade|mark|judge)\s+(?:this|my|the (?:first|second|above|following)|answer \w|it)\b"
            r".{0,40}?\b(?:highest|maximum|full marks|perfect|10(?:/10)?|5/5|100|winner|best)\b|"
            r"\b(?:the |dear )?(?:grader|judge|evaluator|rater|reviewer model)s?\b.{0,30}\b(?:highest|maximum|full|"
            r"top|perfect) (?:score|marks|rating|grade)",
        ),
        ("grade", 0.4, r"\bfinal (?:verdict|score|rating)\s*:"),
        # A new role, new orders, and what only the model has.
        (
            "role",
            0.5,
            r"\byou are (?:now|no longer)\s+(?:an?|the|in|my|called|free|bound|dan\b|developer|unrestricted|going)\b|"
            r"\bfrom now on,? (?:you|say|answer|respond|reply|only|always|ignore|act)|"
            r"\b(?:pretend|imagine) (?:that )?you(?: are|'re) (?:an? (?:ai|model|unrestricted|evil)|not an? |dan\b)",
        ),
        ("mode", 0.5, r"\b(?:developer|jailbreak|dan|god|debug|sudo|unrestricted) mode\b"),
        (
            "role",
            0.5,
            r"\bdu bist (?:jetzt|nun|ab (?:sofort|jetzt)|nicht mehr)\b|\bab (?:sofort|jetzt) (?:bist|antwort|sag)|"
            r"\b(?:tu es|vous [eê]tes) (?:maintenant|d[eé]sormais)\b|\bd[eé]sormais,? (?:tu|r[eé]pond)|"
            r"\bahora eres\b|\ba partir de ahora,? (?:eres|respond|di\b|solo|actúa)",
        ),
        ("role", 0.5, r"你现在(?:是|扮演)|从现在(?:起|开始),?\s*你|(?:假装|扮演)你?(?:是|一个)"),
        (
            "orders",
            0.7,
            r"\b(?:new|updated|real|actual|secret|hidden|additional|urgent) (?:system )?(?:instructions?|prompt|"
            r"directive)s?\s*:|"
            r"\byour (?:new|real|actual|true|only) (?:task|instructions?|role|goal|purpose|job)\b|"
            r"\b(?:note|message|instructions?|attention) (?:to|for) (?:the )?(?:ai|model|llm|assistant|chatbot|"
            r"grader|judge|teacher model)\b|"
            r"\bneue (?:anweisung|aufgabe)\w*:|\bnouvelles? (?:instruction|consigne)s?\s*:|"
            r"\bnuevas? instrucci[oó]n(?:es)?:",
        ),
        ("orders", 0.7, r"新(?:的)?(?:系统)?指令:"),
        (
            "secrets",
            0.8,
            r"\b(?:reveal|show|print|repeat|output|display|leak|tell me|give me|what (?:is|"
            r"are))\s+(?:me\s+)?(?:all\s+)?(?:of\s+)?"
            r"your\s+(?:\w+\s+)?(?:system prompt|prompt|instructions|initial instructions|hidden rules)\b|"
            r"\b(?:zeig|nenn|gib)\w* (?:mir )?(?:deinen?|den) system-?prompt|\b(?:prompt syst[eè]me|"
            r"prompt del sistema)\b",
        ),
        ("secrets", 0.8, r"(?:显示|输出|告诉我|重复|泄露)[^.!?\n]{0,6}系统提示"),
        (
            "only",
            0.4,
            r"\b(?:say|print|output|respond|reply|answer|return|write|repeat)\b.{0,40}\b(?:nothing else|"
            r"and nothing more|no other text)\b",
        ),
        ("hidden", 0.5, "[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"),
    )
)

#: "End your reply with".
_AROUND = (
    r"(?:begin|start|end|finish|close|open|conclude)(?: (?:your|the|every) (?:reply|answer|response|text|"
    r"message))? with"
)
#: Verbs of speaking. In front of a quotation all of them order something; without one, only what is said word by word.
_SAY_EN = (
    r"(?:say|print|output|repeat|echo|type|(?:respond|reply|answer)(?: only| just)? with|answer|respond|reply|write)"
)
_QUOTING_EN = (
    rf"(?:{_SAY_EN}|{_AROUND}|return|include|insert|append|add|mention|the (?:answer|reply|response) (?:is|must be))"
)
_SAY_OTHER = (
    r"(?:antworte(?:n sie)?|sage?(?:n sie)?|schreibe?(?:n sie)?|wiederhol(?:e|en sie)|gib|geben sie|nenne(?:n sie)?|"
    r"dis|dites|r[eé]pond(?:s|ez)|[eé]cri(?:s|vez)|r[eé]p[eè]te[rz]?|affiche[rz]?|"
    r"di|diga|responde|responda|escrib[ea]|repit[ea]|imprim[ea]|contest[ea]|muestr[ea])"
)
_FILLER = (
    r"(?:\s*(?::|,|only|exactly|just|simply|back|out|me|literally|verbatim|with|by saying|always|"
    r"the (?:single |exact |following |secret )*(?:words?|phrase|sentence|text|string|token|line|code ?word|password|"
    r"code|answer)s?|"
    r"the following|nur|genau|bitte|am anfang|am ende|zuerst|einfach|ausschlie(?:ß|ss)lich|immer|mit|aus|den satz|"
    r"das wort|die w[oö]rter|"
    r"seulement|uniquement|simplement|exactement|juste|par|avec|toujours|le mot|la phrase|les mots|"
    r"solo|s[oó]lo|solamente|[uú]nicamente|exactamente|siempre|con|la palabra|la frase|las palabras)(?=\W|$))*\s*"
)
#: Where a clause may begin, so that a verb there is an order and not part of a tale.
_CLAUSE = (
    r"(?:^|[\n\r.!?:;,>|\])}\"'»-]\s*|\b(?:and|then|but|please|now|must|should|will|to|always|only|just|instead|"
    r"simply|first|also|"
    r"und|dann|bitte|et|puis|y|luego|por favor|entonces)\s+)"
)
_QUOTE = (
    r"(?:\"([^\"\n]+)\"|(?<!\w)'([^'\n]+)'(?!\w)|[“„]([^”“\n]+)[”“]|‘([^’\n]+)’|«\s*([^»\n]+?)\s*»|「([^」\n]+)」|"
    r"『([^』\n]+)』|`{1,3}([^`\n]+)`{1,3}|\*\*([^*\n]+)\*\*)"
)
_QUOTED = re.compile(rf"{_CLAUSE}(?:{_QUOTING_EN}|{_SAY_OTHER})\b{_FILLER}{_QUOTE}")
_BARE = re.compile(rf"{_CLAUSE}(?:{_SAY_EN}|{_AROUND}|{_SAY_OTHER})\b{_FILLER}([^\s\"'“”«»].{{0,200}})")
_DEMAND_EN = re.compile(
    rf"(?:{_QUOTE}|\b(?:word|phrase|code ?word|sentence|password|string|token)s?:?\s+([^\s.,;]+(?: [^\s.,;]+){{0,5}}?))"
    r"\s+(?:must|should|has to|have to|needs? to|is to|shall)\s+(?:\w+\s+)?(?:appear|stand|be (?:included|mentioned|"
    r"repeated|quoted|printed|said|"
    r"in (?:your|the)|part of))"
)
#: "Append WORDS to your reply", "your answer contains the words WORDS".
_INSIDE = re.compile(
    rf"{_CLAUSE}(?:include|insert|append|add|mention|put|place|use)\s+(?:the (?:words?|phrase|sentence|"
    rf"code ?word)\s+)?([^\n.;:]{{4,80}}?)\s+"
    r"(?:to|in|into|at|inside)\s+(?:the (?:end|start|beginning|top) of\s+)?(?:your|every|each|the) (?:reply|answer|"
    r"response|output)|"
    r"\b(?:reply|answer|response|output)\s+(?:must\s+)?(?:contains?|includes?|mentions?|has|says|begins with|"
    r"ends with)\s+"
    r"(?:the )?(?:exact )?(?:words?|phrase|sentence|code ?word|string)\s+([^\n.;,]{4,80})|"
    r"\b(?:answer|reply|response) to (?:every|each|all|any) (?:questions?|inputs?|requests?) (?:is|are|"
    r"must be)\s+([^\n.;,]{4,80})"
)
_CHINESE = re.compile(
    r"(?:(?:请|只|仅|只能|必须|应该|直接|然后)(?:需|要|能)?(?:说出?|写出?|回答|输出|回复|重复|打印|返回)|"
    r"(?:^|[\n.,!?;:])(?:输出|重复|打印|返回|回复))(?:一句|一遍|以下内容|下面的话|这句话|道|:|,)*\s*"
    r"(?:[“\"「『‘'«]([^”\"」』’'»\n]+)[”\"」』’'»]|([^\s,.;!?“\"「]{2,40}(?: [a-z0-9][^\s,.;!?]*)*))"
)
_END = re.compile(
    r"[.!?;,\n\r\"“”«»<>|{}\[\]]|\s(?:and|then|instead|to prove|und|et|y|aus|in place|no matter|whatever|at the|"
    r"to your|in your|into|"
    r"for (?:every|all|this|the))\b"
)
#: What the object of an order begins with where it is described and not dictated: "say what you think".
_DESCRIPTIONS = (
    "a an the your my our his her its their this that these those it them me us him what how why whether if "
    "which who when where in to as all each every some any no not one two three about by for from on of at "
    "more less is are was so sorry yes ein eine einen die der das den dein deine mir uns was wie warum ob un "
    "une le la les des ton ta votre ce que comment pourquoi el los las una unos tu su lo qué cómo "
)
_DESCRIBED = frozenset(_DESCRIPTIONS.split())


#: Runs of white space become one, so that no pattern goes over a long one again and again.
_BLANKS, _LINES = re.compile(r"[^\S\n\r]+"), re.compile(r" ?[\n\r][\s]*")


@lru_cache(maxsize=4096)
def read(text: str) -> str:
    """The text as patterns read it: plain, case and white space folded, curly apostrophes straight."""
    return _LINES.sub("\n", _BLANKS.sub(" ", plain(text).text.casefold().replace("\u2019", "'")))


def signs(text: str, own: re.Pattern[str] | None = None) -> tuple[float, dict[str, str]]:
    """How far a text speaks to the model, and by what.

    Args:
        text: An input.
        own: A project's own phrases; one of them is enough.

    Returns:
        A score in [0, 1], the weights of the signs found taken together as independent, and each sign's own words.
    """
    folded, left = read(text), 1.0
    found: dict[str, str] = {}
    for sign in SIGNS:
        seen = None if sign.name in found else sign.pattern.search(text if sign.name == "hidden" else folded)
        if seen is not None:
            found[sign.name] = " ".join(seen.group().split())[:60]
            left *= 1.0 - sign.weight
    if own is not None and (seen := own.search(folded)):
        found["phrase"], left = seen.group()[:60], 0.0
    return 1.0 - left, found


def orders(text: str) -> Iterator[tuple[str, bool]]:
    """What a text orders its reader to say, word by word, and whether that stands in quotes."""
    folded = read(text)
    for pattern in (_QUOTED, _DEMAND_EN, _INSIDE):
        for found in pattern.finditer(folded):
            payload = next(group for group in found.groups() if group)
            yield payload[:LONGEST], pattern is _QUOTED
    at = 0
    while found := _BARE.search(folded, at):
        at = found.start(1)  # an order may stand inside another one's object
        payload = _END.split(found.group(1)[:LONGEST], maxsplit=1)[0]
        some = payload.split()
        if some and some[0].strip("*_:") not in _DESCRIBED and len(some) <= MOST_WORDS:
            yield payload, False
    for found in _CHINESE.finditer(folded):
        yield (found.group(1) or found.group(2))[:LONGEST], found.group(1) is not None
