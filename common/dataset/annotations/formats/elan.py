"""ELAN's `.eaf`: XML with times in whole milliseconds, phases as annotations of a tier.

Facts of the format by its schema 3.0 (http://www.mpi.nl/tools/elan/EAFv3.0.xsd) and the example of
TheLanguageArchive/EAF-parser. An annotation refers to two slots of time, or to an annotation of another tier.
"""

import math
import mimetypes
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from common.base.files import read_text
from common.base.runtime import UserError, first_line, listed, shown
from common.dataset.annotations.annotated import Annotated, KnownPhases
from common.dataset.annotations.prelabelled import Prelabelled
from common.dataset.importing.label_tables import PhaseInterval

TIER, DOUBT_TIER = "phase", "look here"
VOCABULARY, VALUE_ID = "phases", "cve"
SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
MILLISECONDS = 1000
MOST_STEPS = 64  # from a tier to the one that has its times


def read_elan(path: Path, known: KnownPhases) -> Iterator[Annotated]:
    """The tiers of a file that hold phases, each an annotator.

    Raises `UserError` for what is no `.eaf`, for entities and document types, and where no tier has a phase.
    """
    document = _parsed(path)
    if document.tag != "ANNOTATION_DOCUMENT":
        raise UserError(f"{path}: expected XML of ELAN, ANNOTATION_DOCUMENT, found {shown(document.tag)}; leave it out")
    units = next((header.get("TIME_UNITS") for header in document.iter("HEADER")), None)
    if units not in (None, "milliseconds"):
        raise UserError(f"{path}: its times are in {shown(units)}, expected milliseconds; save it again from ELAN")
    names = [tier.get("TIER_ID", "") for tier in document.iter("TIER")]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(
            f"{path}: several tiers are called {listed([shown(name) for name in twice])}; rename one in ELAN"
        )
    tiers = dict(zip(names, document.iter("TIER"), strict=True))
    values = {
        name: [(text.text or "").strip() for text in tier.iter("ANNOTATION_VALUE")] for name, tier in tiers.items()
    }
    of_phases = [name for name, texts in values.items() if any(map(known.has, texts))]
    if not of_phases:
        there = sorted({text for texts in values.values() for text in texts if text})
        raise UserError(
            f"{path}: no tier has a known phase; its tiers are {listed(list(tiers)) or 'none'}, with {listed(there) or 'nothing'}; "
            f"known phases: {listed(known.names)} (--mapping names others)"
        )
    media = _media(path, document) or {path.name.rpartition(".")[0]: 0.0}
    for name in of_phases:
        yield Annotated(path, f"{path}, tier {name}", media, partial(_intervals, path, document, name), annotator=name)


def _parsed(path: Path) -> ElementTree.Element:
    """The root of an XML file that has no document type, and so no entities, which could grow without end."""
    text = read_text(path)

    def refuse(*_: object) -> None:
        raise UserError(
            f"{path}: has a document type or entities, which could stand for anything; save it again from ELAN"
        )

    parser = ElementTree.XMLParser()
    guard = expat.ParserCreate("utf-8")  # whatever the declaration says: the text is decoded
    guard.StartDoctypeDeclHandler = guard.EntityDeclHandler = refuse
    try:
        guard.Parse(text.encode(), True)
        parser.feed(text)
        return parser.close()
    except (expat.ExpatError, ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: not readable as XML ({first_line(error)}); save it again from ELAN") from error


def _media(path: Path, document: ElementTree.Element) -> dict[str, float]:
    """The media of a document with the seconds of each at which its time begins."""
    media = {}
    for descriptor in document.iter("MEDIA_DESCRIPTOR"):
        start = _seconds(descriptor.get("TIME_ORIGIN", "0"))
        if start is None:
            raise UserError(
                f"{path}: its media begin at TIME_ORIGIN {shown(descriptor.get('TIME_ORIGIN'))}, expected milliseconds; "
                "save it again from ELAN"
            )
        links = (descriptor.get("MEDIA_URL"), descriptor.get("RELATIVE_MEDIA_URL"))
        media |= {link: start for link in links if link}
    return media


def _seconds(milliseconds: str | None) -> float | None:
    """Seconds of a time as it stands there; None for no number."""
    try:
        seconds = float(milliseconds or "") / MILLISECONDS
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _intervals(path: Path, document: ElementTree.Element, tier_name: str) -> Iterator[PhaseInterval]:
    times = {slot.get("TIME_SLOT_ID"): _seconds(slot.get("TIME_VALUE")) for slot in document.iter("TIME_SLOT")}
    everything = {
        annotation.get("ANNOTATION_ID"): annotation
        for kind in ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION")
        for annotation in document.iter(kind)
    }
    tier = next(tier for tier in document.iter("TIER") if tier.get("TIER_ID", "") == tier_name)
    for annotation in (inner for outer in tier.iter("ANNOTATION") for inner in outer):
        name = annotation.get("ANNOTATION_ID")
        where = f"{path}, tier {tier_name}, annotation {name}"
        timed = annotation
        for _ in range(MOST_STEPS):
            if timed is None or timed.tag == "ALIGNABLE_ANNOTATION":
                break
            if timed.get("PREVIOUS_ANNOTATION"):  # a symbolic subdivision
                raise UserError(
                    f"{where}: has no time of its own: it is one of several parts of annotation {timed.get('ANNOTATION_REF')}; "
                    "put them on a tier with times in ELAN"
                )
            timed = everything.get(timed.get("ANNOTATION_REF"))
        if timed is None or timed.tag != "ALIGNABLE_ANNOTATION":
            raise UserError(f"{where}: refers to no annotation that has a time; save it again from ELAN")
        bounds = [times.get(timed.get(key)) for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2")]
        if None in bounds:
            raise UserError(f"{where}: has no time at its {'start' if bounds[0] is None else 'end'}; align it in ELAN")
        yield PhaseInterval(where, *bounds, annotation.findtext("ANNOTATION_VALUE") or "")


@dataclass
class _Writer:
    """The slots and tiers of a document as they come."""

    slots: list[int] = field(default_factory=list)
    num_annotations: int = 0

    def tier(self, name: str, kind: str, annotations: Sequence[tuple[float, float, str, str | None]]) -> Iterator[str]:
        """Lines of a tier of `(start, end, value, id of the value in the vocabulary)`."""
        yield f"    <TIER LINGUISTIC_TYPE_REF={quoteattr(kind)} TIER_ID={quoteattr(name)}>"
        for start, end, value, entry in annotations:
            slots = []
            for seconds in (start, end):
                self.slots.append(round(seconds * MILLISECONDS))
                slots.append(f"ts{len(self.slots)}")
            self.num_annotations += 1
            reference = f' CVE_REF="{entry}"' if entry else ""
            yield "        <ANNOTATION>"
            yield (
                f'            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a{self.num_annotations}"{reference} '
                f'TIME_SLOT_REF1="{slots[0]}" TIME_SLOT_REF2="{slots[1]}">'
            )
            yield f"                <ANNOTATION_VALUE>{_escaped(value)}</ANNOTATION_VALUE>"
            yield "            </ALIGNABLE_ANNOTATION>"
            yield "        </ANNOTATION>"
        yield "    </TIER>"


def elan_text(video: Prelabelled, phases: Sequence[str], link: str, date: str) -> str:
    """An `.eaf` of one video: its phases by the vocabulary of all `phases`, and where to look as a second tier.

    `link` is the place of the video from the file; `date` an ISO time with its zone.
    """
    writer, entries = _Writer(), {name: f"{VALUE_ID}{index}" for index, name in enumerate(phases)}
    tiers = [
        *writer.tier(TIER, TIER, [(*video.seconds(one), one.phase, entries[one.phase]) for one in video.segments]),
        *writer.tier(
            DOUBT_TIER, "default-lt", [(*video.seconds(one), one.doubt, None) for one in video.segments if one.doubt]
        ),
    ]
    # the schema wants an absolute link; ELAN, which does not find it, takes the relative one
    absolute = f"file:///{link.rpartition('/')[2]}"
    kind = mimetypes.guess_type(link)[0] or "video/mp4"
    head = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<ANNOTATION_DOCUMENT AUTHOR="" DATE="{date}" FORMAT="3.0" VERSION="3.0" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="{SCHEMA}">',
        '    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">',
        f'        <MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(absolute)} MIME_TYPE="{kind}" '
        f"RELATIVE_MEDIA_URL={quoteattr(link if link.startswith('.') else f'./{link}')}/>",
        f'        <PROPERTY NAME="lastUsedAnnotationId">{writer.num_annotations}</PROPERTY>',
        "    </HEADER>",
        "    <TIME_ORDER>",
        *(
            f'        <TIME_SLOT TIME_SLOT_ID="ts{number}" TIME_VALUE="{value}"/>'
            for number, value in enumerate(writer.slots, 1)
        ),
        "    </TIME_ORDER>",
    ]
    return "\n".join([*head, *tiers, *_vocabulary(entries), "</ANNOTATION_DOCUMENT>", ""])


def elan_colours_text(phases: Sequence[str], colours: Sequence[str]) -> str:
    """The preferences (`<video>.pfsx`, beside the `.eaf`) by which ELAN shows each phase in its colour, `#RRGGBB`.

    Keys by ELAN's `ElanFrame2.loadCVPreferences` and `PreferencesWriter`.
    """
    entries = [
        f'            <prefGroup key="{VALUE_ID}{index}">\n'
        f'                <pref key="Color"><Object class="java.awt.Color">{_rgb(colour)}</Object></pref>\n'
        "            </prefGroup>"
        for index, (_, colour) in enumerate(zip(phases, colours, strict=True))
    ]
    head = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<preferences version="1.1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/Prefs_v1.1.xsd">',
        '    <prefGroup key="CV.ML.Prefs">',
        f'        <prefGroup key="{VOCABULARY}">',
    ]
    return "\n".join([*head, *entries, "        </prefGroup>", "    </prefGroup>", "</preferences>", ""])


def _rgb(colour: str) -> str:
    """`#RRGGBB` as three decimal numbers."""
    return ",".join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))


def _vocabulary(entries: Mapping[str, str]) -> Iterator[str]:
    """The types of the two tiers and the phases to choose from."""
    yield (
        f'    <LINGUISTIC_TYPE CONTROLLED_VOCABULARY_REF="{VOCABULARY}" GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="{TIER}" '
        'TIME_ALIGNABLE="true"/>'
    )
    yield '    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>'
    yield (
        '    <LANGUAGE LANG_DEF="http://cdb.iso.org/lg/CDB-00130975-001" LANG_ID="und" LANG_LABEL="undetermined (und)"/>'
    )
    yield f'    <CONTROLLED_VOCABULARY CV_ID="{VOCABULARY}">'
    yield '        <DESCRIPTION LANG_REF="und"/>'
    for name, entry in entries.items():
        yield f'        <CV_ENTRY_ML CVE_ID="{entry}">'
        yield f'            <CVE_VALUE DESCRIPTION="" LANG_REF="und">{_escaped(name)}</CVE_VALUE>'
        yield "        </CV_ENTRY_ML>"
    yield "    </CONTROLLED_VOCABULARY>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
