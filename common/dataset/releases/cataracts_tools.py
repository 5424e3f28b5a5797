"""CATARACTS, tools of the 2017 challenge (Al Hajj et al., Medical Image Analysis 2019): which of 21 tools each frame has.

Two experts looked: 0.5 says that one of them saw the tool. Such a label, and a frame with `to_be_evaluated` 0, is nobody's
to learn from or to be scored on. The challenge's measure is the area under the ROC curve, mean over tools.
"""

from collections.abc import Mapping
from pathlib import Path

from common.base.runtime import UserError, listed, shown
from common.dataset.importing.release import Phases, Reading, letters
from common.dataset.importing.task_release import TaskContent, TaskRelease, presence_content
from common.dataset.releases.cataracts import challenge_files
from common.dataset.tables import read_table, table_titles

TOOLS = Phases(
    (
        "biomarker",
        "Charleux cannula",
        "hydrodissection cannula",
        "Rycroft cannula",
        "viscoelastic cannula",
        "cotton",
        "capsulorhexis cystotome",
        "Bonn forceps",
        "capsulorhexis forceps",
        "Troutman forceps",
        "needle holder",
        "irrigation/aspiration handpiece",
        "phacoemulsifier handpiece",
        "vitrectomy handpiece",
        "implant injector",
        "primary incision knife",
        "secondary incision knife",
        "micromanipulator",
        "suture needle",
        "Mendez ring",
        "Vannas scissors",
    )
)
EVALUATED = "to_be_evaluated"
FIRST = 1  # frames are counted from
VALUES: Mapping[float, int | None] = {0.0: 0, 0.5: None, 1.0: 1}


def _read(reading: Reading) -> TaskContent:
    """`ground_truth/CATARACTS_2017/{train,test}_gt/<video>.csv`: `Frame`, `to_be_evaluated`, a column a tool."""
    files, media = challenge_files(reading, "CATARACTS_2017", "{train,test}_gt")
    labels, videos = {}, {}
    for name, path, video in reading.pair(files, media, "CATARACTS_2017/{train,test}_gt/<video>.csv"):
        with reading.naming_problems():
            if reading.with_videos and video is None:
                raise UserError(f"{path}: labels of {name}, but no video; --videos DIR names another folder")
            labels[name] = _tools_of_frames(path)
            videos[name] = video
    read = [files[name] for name in labels]
    if whole := [path.name for path in read if letters(EVALUATED) not in map(letters, table_titles(path))]:
        reading.notes.append(f"no column {EVALUATED} in {listed(whole, 3)}: all of their frames are taken")
    content = presence_content(TOOLS.names, labels)
    content.description["measure"] = "roc_area"
    content.links = {f"videos/{name}{video.suffix}": video for name, video in videos.items() if video}
    return content


def _tools_of_frames(path: Path) -> dict[int, list[int | None]]:
    """Which tools each frame to be evaluated has; None where the experts disagree. Raises `UserError` naming file and line."""
    spelled = {letters(title): title for title in table_titles(path)}
    frame_column = spelled.get("frame") or spelled.get("frames")
    evaluated = spelled.get(letters(EVALUATED))
    columns = {tool: spelled.get(letters(tool)) for tool in TOOLS.names}
    lacking = [tool for tool, column in columns.items() if column is None]
    if lacking or frame_column is None:
        lacking = lacking or ["Frame"]
        raise UserError(
            f"{path}, line 1: expected Frame and the 21 tools of the challenge, found no column of {listed(lacking)}"
        )
    frames: dict[int, list[int | None]] = {}
    wanted = [frame_column, *([evaluated] if evaluated else []), *columns.values()]
    for line, row in read_table(path, wanted, ","):
        where = f"{path}, line {line}"
        number = _number(row[frame_column], frame_column, where)
        if number < FIRST or not number.is_integer() or number - FIRST in frames:
            raise UserError(f"{where}: expected each frame once, from {FIRST} on, found {shown(row[frame_column])}")
        present = [_tool(row[column], tool, where) for tool, column in columns.items()]
        if evaluated is None or _number(row[evaluated], evaluated, where):
            frames[int(number) - FIRST] = present
    if not frames:
        raise UserError(f"{path}: no frame to be evaluated in it; expected a row for each")
    return frames


def _tool(text: str | None, tool: str, where: str) -> int | None:
    value = _number(text, tool, where)
    if value not in VALUES:
        raise UserError(f"{where}: {tool}: expected 0, 0.5 or 1, found {shown(text)}")
    return VALUES[value]


def _number(text: str | None, column: str, where: str) -> float:
    try:
        return float(text or "")
    except ValueError as error:
        raise UserError(f"{where}: {column}: expected a number, found {shown(text)}") from error


TASK_RELEASES = (
    TaskRelease(
        title="CATARACTS-tools",
        task="multilabel",
        read=_read,
        licence="not seen",
        source="Al Hajj et al., Medical Image Analysis 2019; columns by code of others, order of tools by the owners' page",
        ask="IEEE DataPort, free account",
        num_videos=50,
        tried="miniature; form by code of others",
        features_of="CATARACTS",
        phases=TOOLS,
        public_set="cataracts",
        notes=(
            "0.5 (one of two experts) is left empty; frames with to_be_evaluated 0 are left out",
            "the challenge's measure is the ROC area, mean over tools",
        ),
    ),
)
