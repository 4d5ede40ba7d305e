"""What libraries say is kept and not printed."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Literal

import pytest

from carzero.core.remarks import Remark, collected_remarks, warn_once


def test_every_way_of_speaking_is_heard_once_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with collected_remarks() as remarks:
        for _ in range(2):
            os.write(2, b"libpng warning: iCCP: known incorrect sRGB profile\n")
            warnings.warn("odd value\nin two lines", UserWarning, stacklevel=1)
            logging.getLogger("decoder").warning("premature %s", "end")
        warnings.warn("use another function", DeprecationWarning, stacklevel=1)
        logging.getLogger("decoder").info("reading")
        sys.__stderr__.write("of Python\n")
    assert set(remarks) == {
        Remark("printed", "libpng warning: iCCP: known incorrect sRGB profile"),
        Remark("printed", "of Python"),
        Remark("test_remarks", "odd value"),
        Remark("decoder", "premature end"),
    }
    assert len(remarks) == 4
    assert capfd.readouterr() == ("", "")


def test_all_is_as_before_when_the_block_ends_even_by_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    handlers, filters = list(logging.getLogger().handlers), list(warnings.filters)
    with pytest.raises(ValueError, match="broken"), collected_remarks():
        raise ValueError("broken")
    os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"
    assert logging.getLogger().handlers == handlers
    assert warnings.filters == filters


def test_a_flood_is_cut() -> None:
    with collected_remarks() as remarks:
        for number in range(20_000):
            os.write(2, b"line %d\n" % number)
    assert 1000 < len(remarks) < 20_000


def test_a_loop_is_warned_once_although_libraries_touch_the_filters() -> None:
    def count(action: Literal["default", "always", "ignore"]) -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.resetwarnings()
            warnings.filterwarnings(action, category=UserWarning)
            for image in range(6):
                with warnings.catch_warnings():  # as pandas does
                    warnings.simplefilter("ignore")
                warn_once(f"odd {image % 2}, {action}", UserWarning)
        return len(caught)

    assert [count("default"), count("always"), count("ignore")] == [2, 6, 0]
