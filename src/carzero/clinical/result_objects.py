"""The kinds of result objects, and the one call that builds them from a scored image."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from carzero.clinical.common_attributes import load_highdicom
from carzero.clinical.content import ResultContent, ResultSettings, collect_content
from carzero.clinical.image_header import SourceImage, load_source
from carzero.clinical.pages import build_captures, build_pdf, count_pages
from carzero.clinical.presentation import build_presentation, build_segments, build_selection
from carzero.clinical.structured_report import build_report
from carzero.errors import ConfigurationError, UnsuitableImageError, describe
from carzero.records import ScoredImage


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of result.

    Attributes:
        what: what it is, for the help.
        build: makes the objects of an image.
        overlays: whether it needs the drawn maps.
        regions: whether it needs the regions.
        paged: whether an image has one object a page, and not one.
        by_highdicom: whether highdicom puts it together.
    """

    what: str
    build: Callable[[ResultContent, int], Iterator[Dataset]]
    overlays: bool = False
    regions: bool = False
    paged: bool = False
    by_highdicom: bool = False


KINDS: dict[str, Kind] = {
    "sr": Kind("Comprehensive 3D SR (TID 1500), for machines: findings, scores, boxes", build_report),
    "sc": Kind("Secondary Capture in colour: image, maps, table of scores", build_captures, overlays=True, paged=True),
    "pdf": Kind("the same pages as an encapsulated PDF", build_pdf, overlays=True),
    "gsps": Kind("presentation state: boxes over the image", build_presentation, by_highdicom=True),
    "ko": Kind("key object selection that names the image", build_selection, by_highdicom=True),
    "seg": Kind("binary segmentation: the region around each peak", build_segments, regions=True, by_highdicom=True),
}
DEFAULT_KINDS = ("sr", "sc")


def check_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """Known kinds in the order of `KINDS`, each once.

    Raises:
        ConfigurationError: an unknown one, or none.
    """
    asked = [name.strip().lower() for name in names]
    unknown = [name for name in asked if name not in KINDS]
    if unknown or not asked:
        raise ConfigurationError(
            describe("The kind of result is unknown", got=unknown or None, expected=f"some of {', '.join(KINDS)}")
        )
    return tuple(name for name in KINDS if name in asked)


def load_libraries(names: Iterable[str]) -> None:
    """Imports what kinds of result need.

    Raises:
        MissingExtraError: it is not installed.
    """
    if any(KINDS[name].by_highdicom for name in names):
        load_highdicom()


def build_results(
    image: ScoredImage,
    settings: ResultSettings,
    *,
    kinds: Iterable[str] = DEFAULT_KINDS,
    source: SourceImage | None = None,
    when: datetime.datetime | None = None,
) -> list[Dataset]:
    """Builds the DICOM results of one image, ready to be saved or sent.

    The same image and settings give objects with the same identifiers, which differ in their times alone.

    Args:
        image: scored with `need_maps=True`, from a DICOM file.
        settings: what decides the content beside the image.
        kinds: of `KINDS`.
        source: the image's header; None reads it from the image's path.
        when: when the content was made, with its time zone; None is now.

    Returns:
        Data sets with file meta information (`save_as(path, enforce_file_format=True)`). All are unverified.

    Raises:
        ConfigurationError: an unknown kind.
        ImageError: the image is not a DICOM file, or lacks the identifiers that results refer to.
        MissingExtraError: highdicom, which some kinds need, is not installed.
    """
    return [result for _, results in build_by_kind(image, settings, kinds, source, when) for result in results]


def build_by_kind(
    image: ScoredImage,
    settings: ResultSettings,
    kinds: Iterable[str],
    source: SourceImage | None = None,
    when: datetime.datetime | None = None,
) -> list[tuple[str, list[Dataset]]]:
    """The results of `build_results`, those of each kind together, in the order of `KINDS`."""
    names = check_kinds(kinds)
    load_libraries(names)
    content = collect_content(
        image,
        source or load_source(image.item.path),
        settings,
        overlays=any(KINDS[name].overlays for name in names),
        regions=any(KINDS[name].regions for name in names),
        when=when,
    )
    return [(name, _build(name, content)) for name in names]


def _build(name: str, content: ResultContent) -> list[Dataset]:
    try:
        return list(KINDS[name].build(content, [*KINDS].index(name) + 1))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # an odd header, as highdicom finds it
        raise UnsuitableImageError(
            describe(
                f"{content.source.path} cannot have a result of kind {name}",
                got=f"{type(error).__name__}: {error}",
                expected="a header that such an object can refer to",
                then="leave this kind out",
            )
        ) from error


def list_results(source: SourceImage, settings: ResultSettings, kinds: Iterable[str]) -> dict[str, list[str]]:
    """SOP Instance UIDs of the results that an image will have, by kind, before it is scored.

    A segmentation may be missing: whether there is one depends on the maps.
    """
    uids = settings.uids(source)
    pages = count_pages(len(settings.prompts))
    return {
        name: [uids.instance(name, number) for number in range(1, pages + 1 if KINDS[name].paged else 2)]
        for name in check_kinds(kinds)
    }
