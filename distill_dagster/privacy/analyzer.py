"""presidio's AnalyzerEngine, built so that it downloads nothing and asks nobody.

Recognizers are those of presidio that work on this machine: patterns with their checks, telephone numbers by
`phonenumbers`, and, with a spaCy model, the entities that it names. Without a model spaCy splits words alone; that is
what a pattern's score rises by, where such words as "account number" stand before it.
"""

from __future__ import annotations

import inspect
import logging
import re
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill_dagster.config.registry import nearest
from distill_dagster.privacy import personal
from distill_dagster.privacy.found import Finding
from distill_dagster.privacy.presidio import DetectorError

#: Code points that are looked at together, and what stands around them for their context.
WINDOW, AROUND = 20_000, 400

#: Where presidio's own recognizers stand that need neither a server nor a model.
_LOCAL = tuple(f"presidio_analyzer.predefined_recognizers.{part}" for part in ("generic", "country_specific"))
#: Looked for where they are named. presidio leaves out ORGANIZATION by itself, for its false positives; its pattern of
#: a URL takes minutes on a long run of dotted letters.
_UNASKED = ("ORGANIZATION", "URL")
#: presidio's entities by the labels of spaCy models; other labels (CARDINAL, MONEY) count where they are asked for.
_LABELS: dict[str, str] = {
    **dict.fromkeys(("PER", "PERSON"), "PERSON"),
    **dict.fromkeys(("FAC", "GPE", "LOC", "LOCATION"), "LOCATION"),
    **dict.fromkeys(("ORG", "ORGANIZATION"), "ORGANIZATION"),
    **dict.fromkeys(("DATE", "TIME"), "DATE_TIME"),
    "NORP": "NRP",
}

#: presidio's names of what the built-in patterns find too.
_OURS = {
    "CA_SIN": "SIN",
    "CREDIT_CARD": "CARD",
    "DE_TAX_ID": "STEUER_ID",
    "EMAIL_ADDRESS": "EMAIL",
    "ES_NIE": "DNI",
    "ES_NIF": "DNI",
    "FI_PERSONAL_IDENTITY_CODE": "HETU",
    "IBAN_CODE": "IBAN",
    "IN_AADHAAR": "AADHAAR",
    "IP_ADDRESS": "IP",
    "IT_FISCAL_CODE": "CODICE_FISCALE",
    "KR_RRN": "RRN",
    "MAC_ADDRESS": "MAC",
    "PHONE_NUMBER": "PHONE",
    "PL_PESEL": "PESEL",
    "SE_PERSONNUMMER": "PERSONNUMMER",
    "TR_NATIONAL_ID": "TCKN",
    "UK_NHS": "NHS_NUMBER",
    "UK_NINO": "NINO",
    "US_SSN": "SSN",
}
_GAPS = re.compile(r"[\s.\-/()]+")
_BLANKS = re.compile(r"\s+")


class Analyzer:
    """Finds what presidio finds in plain texts; spans are in code points.

    Args:
        language: Language of the texts.
        entities: What to look for; None: all that presidio looks for by itself.
        threshold: Score from which a finding counts.
        model: Folder of a spaCy model; None: patterns alone.

    Raises:
        DetectorError: spaCy does not know the language or cannot load the model, or nothing finds an entity.
    """

    def __init__(self, language: str, entities: Iterable[str] | None, threshold: float, model: Path | None) -> None:
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # pyright: ignore[reportMissingImports]

        logging.getLogger("presidio-analyzer").addFilter(_LOG)
        self.language, self.threshold = language, threshold
        nlp = _nlp(language, model)
        named = set(_labels(nlp).values())
        recognizers = _recognizers(language, named, None if entities is None else set(entities))
        known = sorted({entity for one in recognizers for entity in one.supported_entities})
        for entity in entities or ():
            if entity not in known:
                more = "" if model is not None else " Names of people and places need a `model`."
                raise DetectorError("entities", f"nothing finds {entity!r} here.", nearest(entity, known) + more)
        unasked = {*_UNASKED} | named - set(_LABELS.values())
        self.entities = sorted(set(entities)) if entities is not None else [one for one in known if one not in unasked]
        registry = RecognizerRegistry(recognizers=recognizers, supported_languages=[language])
        engine = _engine(language, nlp, sorted(named - set(self.entities)))
        self._engine = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[language])
        # A text is looked at when it is decided about, and again when it is masked.
        self._known = lru_cache(maxsize=64)(self._look)

    def __call__(self, text: str) -> tuple[Finding, ...]:
        """What a text holds; findings may overlap.

        Raises:
            DetectorError: presidio failed, or gave up on a pattern. The error says nothing of the text.
        """
        return self._known(text) if text.strip() else ()

    def _look(self, text: str) -> tuple[Finding, ...]:
        found = set()
        for first, last, start, end in _windows(text):
            for one in self._ask(text[first:last]):
                # What begins in a neighbour's part is the neighbour's, which sees all of it.
                if start <= first + one.start < end:
                    kind = kind_of(one.entity_type)
                    value = _value(kind, text[first + one.start : first + one.end])
                    found.add(Finding(first + one.start, first + one.end, kind, value))
        return tuple(sorted(found))

    def _ask(self, text: str) -> list[Any]:
        _LOG.late = ""
        try:
            found = self._engine.analyze(text, self.language, entities=self.entities, score_threshold=self.threshold)
        except Exception as error:
            # Neither the message nor the cause: presidio's errors may quote the text.
            reason = f"it failed on a text of {len(text)} characters ({type(error).__name__})."
            raise DetectorError("", reason, "Leave the text out, or report it to presidio's authors.") from None
        if _LOG.late:
            reason = f"it gave up on {_LOG.late} in a text of {len(text)} characters."
            raise DetectorError("", reason, "Leave the text out, or the entity out of `entities`.")
        return [one for one in found if one.end > one.start]


def kind_of(entity: str) -> str:
    """The kind of a finding, in the words of a mask: our own where there is one, else presidio's name."""
    letters = re.sub(r"[^A-Z]+", "_", entity.upper()).strip("_")
    return _OURS.get(entity, letters or "ENTITY")


def _value(kind: str, text: str) -> str:
    """Equal for equal things, by the rules of the built-in patterns."""
    if kind in personal.KINDS and kind != "EMAIL":
        return _GAPS.sub("", text).upper()
    return _BLANKS.sub(" ", text.strip()).casefold()


def _windows(text: str) -> Iterator[tuple[int, int, int, int]]:
    """What is looked at (first and last), and which part of it the findings are taken from (start and end).

    Parts end behind a blank where there is one.
    """
    start = 0
    while start < len(text):
        end = min(start + WINDOW, len(text))
        if end < len(text):
            end = next((at for at in range(end, end - AROUND, -1) if text[at - 1].isspace()), end)
        first = max(start - AROUND, 0)
        first = next((at for at in range(first, start) if first == 0 or text[at - 1].isspace()), first)
        last = min(end + AROUND, len(text))
        yield first, last, start, end
        start = end


class _Log(threading.local):
    """What presidio tells in its log alone: that it gave up on a pattern, and goes on without it.

    A filter of its logger, which leaves out as well what it says of recognizers for other languages.

    Attributes:
        late: The pattern that was given up last; empty where none was.
    """

    late = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        if "timed out" in str(record.msg):
            self.late = f"the pattern {record.args[0]!r}" if isinstance(record.args, tuple) else "a pattern"
        return not str(record.msg).startswith("Recognizer not added")


_LOG = _Log()


def _nlp(language: str, model: Path | None) -> Any:
    """spaCy's pipeline: the model's, or one that splits words alone."""
    import spacy  # pyright: ignore[reportMissingImports]

    try:
        nlp = spacy.load(model) if model is not None else spacy.blank(language)
    except Exception as error:
        said = str(error).strip().splitlines()
        reason = f"spaCy cannot load it ({type(error).__name__}: {said[0] if said else ''})."
        hint = "Take a model of the installed spaCy's version." if model else "Name a language that spaCy knows."
        raise DetectorError("model" if model else "language", reason, hint) from error
    if nlp.lang not in (language, "xx"):
        reason = f"the model is of language {nlp.lang!r}, and `language` says {language!r}."
        raise DetectorError("model", reason, "Make them agree.")
    if any("token.lemma" in nlp.get_pipe_meta(pipe).assigns for pipe in nlp.pipe_names):
        return nlp
    split: Any = nlp.tokenizer

    def words(text: str) -> Any:
        doc = split(text)
        for token in doc:
            # Without lemmas presidio would see no words before a number.
            token.lemma_ = token.lower_
        return doc

    nlp.tokenizer = words
    return nlp


def _labels(nlp: Any) -> dict[str, str]:
    """presidio's entities by the labels that a model names; a label that presidio has no name for is its own."""
    found: dict[str, str] = {}
    for pipe in nlp.pipe_names:
        if "doc.ents" in nlp.get_pipe_meta(pipe).assigns:
            found |= {label: _LABELS.get(label, label) for label in nlp.pipe_labels.get(pipe, ())}
    return found


def _engine(language: str, nlp: Any, ignored: list[str]) -> Any:
    """presidio's wrapper of a spaCy pipeline that is loaded already: its own loading would download."""
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine  # pyright: ignore[reportMissingImports]

    ner = NerModelConfiguration(model_to_presidio_entity_mapping=_labels(nlp), labels_to_ignore=ignored)
    engine = SpacyNlpEngine(models=[{"lang_code": language, "model_name": "loaded"}], ner_model_configuration=ner)
    engine.nlp = {language: nlp}
    return engine


def _recognizers(language: str, named: set[str], wanted: set[str] | None) -> list[Any]:
    """presidio's recognizers for a language: those that it takes by itself, and those of the wanted entities."""
    import tldextract  # pyright: ignore[reportMissingImports]
    from presidio_analyzer import LocalRecognizer, RecognizerRegistry, predefined_recognizers  # pyright: ignore[reportMissingImports]
    from presidio_analyzer.predefined_recognizers import EmailRecognizer, SpacyRecognizer  # pyright: ignore[reportMissingImports]

    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language])
    found = [one for one in registry.recognizers if type(one).__module__.startswith(_LOCAL)]
    known = {entity for one in found for entity in one.supported_entities}
    local: list[Any] = [one for _, one in inspect.getmembers(predefined_recognizers, inspect.isclass)]
    missing = set(wanted or ()) - known
    for sort in local if missing else ():
        if issubclass(sort, LocalRecognizer) and sort.__module__.startswith(_LOCAL):
            one = sort(supported_language=language)
            if not missing.isdisjoint(one.supported_entities):
                found.append(one)
    # By itself tldextract fetches the list of public suffixes; this one has the list that it was installed with.
    suffixes = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())
    for one in found:
        if isinstance(one, EmailRecognizer):
            one.validate_result = lambda text: suffixes(text).fqdn != ""
    if named:
        found.append(SpacyRecognizer(supported_language=language, supported_entities=sorted(named)))
    return found
