"""Pack the videos of corpora for Stage 1: decode them once, and keep small frames that are read many times faster.

    python pretrain/pack_videos.py --videos Cataracts-1K                         # to data/packed/Cataracts-1K
    python pretrain/ssl_pretrain_vjepa2.py --model vjepa2-l --videos data/packed/Cataracts-1K
    python pretrain/pack_videos.py --videos Cataracts-1K --shard 2/8             # one of eight jobs; an array sets it itself
    python pretrain/pack_videos.py --videos Cataracts-1K --check                 # are all there, with the content written?

Every video becomes a tar file of JPEG frames, laid out as WebDataset reads it, with a table of times and places and a
record with the video's fingerprint, by which --exclude and the reports' leak checks know it. The same command goes on
where it stopped; videos that are packed already are left as they are.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.base import paths
from common.base.children import num_cores
from common.base.locks import Held
from common.base.options import CommandParser, add_options, check_ranges, option, resolve
from common.base.runtime import UserError, counted, listed, progress, run_main
from pretrain.annotations.cataracts1k import RELEASE

if TYPE_CHECKING:
    from pretrain.video_data.packed import PackedCorpus, PackSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackingOptions:
    """Settings of the packing; the three of the frames are kept in the folder, which holds videos of one kind."""

    videos: tuple[str, ...] = option((RELEASE,), group="data")
    """Corpora: folders of videos, or names of data sets under data/."""
    fps: float = option(4.0, group="data", unit="frames a second", minimum=0, maximum=1000)
    """Frames kept of a second of video, those nearest to a grid: as many as V-JEPA 2 looks at; 0: every frame."""
    short_side: int = option(320, group="data", unit="pixels", minimum=0)
    """Shorter side of the frames kept, above the 224 and 256 of the recipes' crops; larger ones are resized; 0: none."""
    quality: int = option(90, group="data", minimum=1, maximum=100)
    """Of the JPEG files, as Pillow counts it."""
    decoder: Literal["pyav", "opencv", "decord", "torchcodec", "nvdec"] = option("pyav", group="machine")
    """Video decoder; nvdec: torchcodec on the GPU, whose colours differ a little."""
    output: str | None = option(None, group="output")
    """Folder to write, below which each corpus has one (default: data/packed)."""
    force: bool = option(False, group="output")
    """Pack again what is packed already."""
    check: bool = option(False, group="output")
    """Pack nothing: say which videos are not packed, and hold all files against their SHA-256."""
    shard: str | None = option(None, group="machine")
    """Share i/n of the videos, such as 2/8 (default: of a SLURM job array its own, else all)."""
    num_processes: int | None = option(None, group="machine", unit="processes", minimum=0)
    """Videos packed side by side (default: one a core; 0: in this process)."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def settings(self) -> PackSettings:
        """What is kept of a video."""
        from pretrain.video_data.packed import PackSettings

        return PackSettings(self.fps or None, self.short_side or None, self.quality)


def main(argv: list[str] | None = None) -> int:
    """Pack or check; 1 when a video could not be packed, or one that is packed is damaged."""
    parser = CommandParser(None, __doc__)
    parser.add_config()
    add_options(parser, PackingOptions)
    given = vars(parser.parse_args(argv))
    options = resolve(PackingOptions, given, given["config"])

    # after --help: these load decoders
    from pretrain.video_data.corpora import find_corpora
    from pretrain.video_data.packed import PackedCorpus, is_shard

    outcomes = []
    for name, files in find_corpora(options.videos).items():
        if any(is_shard(path) for path in files.values()):
            raise UserError(f"--videos: {name} is packed already; name the folder with its videos")
        folder = Path(options.output).expanduser() / name if options.output else paths.packed_videos(name)
        corpus = PackedCorpus(folder, name, options.settings(), tuple(files))
        outcomes.append(check(corpus) if options.check else pack(corpus, files, options))
    return max(outcomes)


def pack(corpus: PackedCorpus, files: dict[str, Path], options: PackingOptions) -> int:
    """Pack this task's share of a corpus and print what was done; returns the exit code."""
    from common.features.shards import own_share, shard_from_environment
    from common.video.decode import require_decoder
    from pretrain.video_data.packing import describe_corpus, pack_corpus

    share = options.shard or ("{}/{}".format(*own) if (own := shard_from_environment()) else None)
    require_decoder(options.decoder)
    describe_corpus(corpus)
    own_files = own_share(files, share) if share else files
    log.info("%s: %s to %s, %s", corpus.name, counted(len(own_files), "video"), corpus.folder, corpus.settings)
    started, counts, video_bytes, packed_bytes, seconds = time.monotonic(), Counter(), 0, 0, 0.0
    processes = num_cores() if options.num_processes is None else options.num_processes
    with progress(total=len(own_files), description=corpus.name, unit="videos") as bar:
        packing = pack_corpus(corpus, own_files, num_processes=processes, force=options.force, decoder=options.decoder)
        for _, packed in packing:
            bar.update()
            if packed.error is not None:
                counts["in use" if isinstance(packed.error, Held) else "failed"] += 1
                log.warning("not packed: %s", packed.error)
                continue
            counts["packed" if packed.is_new else "packed already"] += 1
            packed_bytes += packed.shard.size_bytes
            video_bytes += packed.shard.entry.size_bytes
            seconds += packed.shard.entry.duration_seconds
    what = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    hours = seconds / 3600
    rate = f", {packed_bytes / 1e9 / hours:.2f} GB an hour" if hours else ""
    print(
        f"{corpus.name}: {what} in {time.monotonic() - started:.0f} s; {hours:.2f} h of video, {packed_bytes / 1e6:,.1f} MB "
        f"packed{rate} (the videos have {video_bytes / 1e6:,.1f} MB): {corpus.folder}"
    )
    return int(counts["failed"] > 0)


def check(corpus: PackedCorpus) -> int:
    """Name the videos of a corpus that are not packed or damaged; returns the exit code."""
    from common.video.probe import VideoError
    from pretrain.video_data.packed import read_packed_corpus, verify_shard

    packed = read_packed_corpus(corpus.folder)
    shards = packed.shards()
    missing = [video for video in corpus.videos if video not in shards]
    damaged = []
    for video, path in progress(shards.items(), description=packed.name, unit="videos"):
        try:
            verify_shard(path)
        except VideoError as error:
            damaged.append(video)
            log.warning("%s", error)
    print(f"{packed.name}: {len(shards) - len(damaged)} whole, {len(damaged)} damaged, {len(missing)} not packed")
    if missing:
        log.warning("not packed: %s; run this without --check", listed(missing))
    return int(bool(missing or damaged))


if __name__ == "__main__":
    run_main(main)
