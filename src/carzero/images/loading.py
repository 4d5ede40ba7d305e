"""Loading images ahead of their scoring: several at a time, in bounded memory, a slow or broken one never in the way.

Threads are enough for the few images that a caller holds: decoders release the interpreter lock. A long run reads in
processes: a decoder that a broken file brings down, or keeps busy for ever, then costs that file alone, and the thread
that drives the model shares its interpreter with nobody.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from carzero.core.lookahead import ahead
from carzero.core.remarks import Remark
from carzero.core.system import count_cores
from carzero.core.workers import CAN_ISOLATE, WorkerCrashedError, WorkerHungError, WorkerPool
from carzero.errors import ImageError, UnreadableImageError, describe, printable
from carzero.images.checks import as_unreadable
from carzero.images.geometry import PixelTransform
from carzero.images.overlay import make_thumbnail
from carzero.records import FailedImage, ImageItem, LoadedImage, to_info


def load_item(
    item: ImageItem,
    transform: PixelTransform,
    force: bool = False,
    keep_pixels: bool = False,
    thumbnail_px: int | None = None,
) -> LoadedImage:
    """Reads an image down to the model's crop.

    Args:
        item: what to read.
        transform: to the model's square.
        force: take a readable image that is not a chest radiograph too.
        keep_pixels: keep the grey levels at full size too; they take tens of megabytes.
        thumbnail_px: the longer side of a thumbnail that is kept in their place; None keeps them as they are.

    Raises:
        ImageError: the image cannot be read, or is not a chest radiograph.
    """
    from carzero.images.reading import load_image, to_model_input  # not above: who has it read needs no decoder

    with as_unreadable("image", item.path):
        radiograph = load_image(item.image, force=force)
        levels = to_model_input(radiograph, transform)
        small = make_thumbnail(radiograph.pixels, thumbnail_px) if keep_pixels and thumbnail_px else None
    kept = radiograph if keep_pixels and small is None else None
    height, width = radiograph.pixels.shape
    return LoadedImage(item, to_info(radiograph), levels, kept, small, (height, width))


_SHOWN_REMARKS, _LONGEST_REMARK = 3, 160
_ABOUT_WORDS = ("pydicom", "valuerep", "charset")  # on the spelling of texts, which they quote: a name, perhaps


def _with_remarks(loaded: LoadedImage, remarks: Sequence[Remark]) -> LoadedImage:
    """The image, with what its decoder has said as doubts about it."""
    texts = [printable(remark.text) for remark in remarks if remark.source not in _ABOUT_WORDS]
    cut = (text if len(text) <= _LONGEST_REMARK else text[:_LONGEST_REMARK] + "..." for text in texts)
    doubts = [f"Its decoder warns: {text.rstrip('.')}." for text in itertools.islice(cut, _SHOWN_REMARKS)]
    if not doubts:
        return loaded
    radiograph = loaded.radiograph
    if radiograph is not None:
        radiograph = replace(radiograph, warnings=(*radiograph.warnings, *doubts))
    info = replace(loaded.info, warnings=(*loaded.info.warnings, *doubts))
    return replace(loaded, info=info, radiograph=radiograph)


LIMIT_S = 300.0

_MOST_READERS = 16


class Readers:
    """Threads, or processes, that read images; they begin to start when this is made.

    Args:
        count: how many images are read at the same time; None takes the number of cores, at most 16.
        images: how many there are to read, so that no more readers start; None where it is not known.
        isolated: True reads files in processes, where a crash or a hang costs one file; False in threads. What is no
            file is read in threads, and on Windows all is.
        limit_s: seconds that reading a file may take in a process.
        thumbnail_px: the longer side of thumbnails that images bring along where their pixels are asked for, in place
            of these; None: the pixels.
    """

    def __init__(
        self,
        count: int | None = None,
        *,
        images: int | None = None,
        isolated: bool = False,
        limit_s: float = LIMIT_S,
        thumbnail_px: int | None = None,
    ) -> None:
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1; got {count}.")
        most = count or min(_MOST_READERS, count_cores())
        self.count = most if images is None else max(1, min(most, images))
        self._thumbnail_px = thumbnail_px
        self._threads = ThreadPoolExecutor(self.count)
        self._processes = (
            WorkerPool(
                load_item, self.count, limit_s=limit_s, remarked=_with_remarks, modules=("carzero.images.reading",)
            )
            if isolated and CAN_ISOLATE
            else None
        )

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._processes is not None:
            self._processes.__exit__(kind, error, trace)

    def read(
        self, item: ImageItem, *, transform: PixelTransform, force: bool, keep_pixels: bool
    ) -> Future[LoadedImage]:
        """Begins to read an image; see `load_item`."""
        arguments = (item, transform, force, keep_pixels, self._thumbnail_px)
        if self._processes is not None and isinstance(item.image, str | Path):
            return self._processes.submit(*arguments)
        return self._threads.submit(load_item, *arguments)


def load_ahead(
    items: Iterable[ImageItem],
    readers: Readers,
    *,
    batch_size: int,
    transform: PixelTransform,
    force: bool = False,
    keep_pixels: bool = False,
    in_order: bool = True,
) -> Iterator[LoadedImage | FailedImage]:
    """Reads images while earlier ones are worked on.

    Args:
        items: the images; they are taken as room is made for them.
        readers: read them.
        batch_size: images that are worked on at once; twice as many, and one for each reader, are on their way.
        transform: to the model's square.
        force: also take readable images that are not chest radiographs.
        keep_pixels: keep each image's grey levels at full size too.
        in_order: True keeps the order given, and waits for a slow image; False lets others pass it once a batch of
            them is ready, so that the order is kept where no image is slow.
    """

    def read(item: ImageItem) -> Future[LoadedImage]:
        return readers.read(item, transform=transform, force=force, keep_pixels=keep_pixels)

    with closing(ahead(items, read, 2 * batch_size + readers.count, None if in_order else 2 * batch_size)) as ready:
        for item, future in ready:
            yield await_loaded(item, future)


def await_loaded(item: ImageItem, future: Future[LoadedImage]) -> LoadedImage | FailedImage:
    """Waits for what `Readers.read` has begun; a file that brought its reader down or held it up is an error of its."""
    try:
        return replace(future.result(), item=item)  # the caller's own, not a process's copy
    except ImageError as error:
        return FailedImage(item, error)
    except (WorkerCrashedError, WorkerHungError) as error:
        failed = UnreadableImageError(
            describe(
                f"{item.path}: its reader {'hung' if isinstance(error, WorkerHungError) else 'crashed'}",
                got=str(error),
                expected="an image that its decoder can read",
                then="export the image again, or leave it out",
            )
        )
        return FailedImage(item, failed)
