"""Times of steps and images: those of layers, never those of the clock where any is known."""

from __future__ import annotations

from ketch.build.export.times import dated
from ketch.oci.config import History, ImageConfig

OLD, FIRST, SECOND, NOW = (f"20{year}-01-01T00:00:00Z" for year in (10, 20, 21, 24))


def step(text, *, layer=True, created=None):
    return History(created_by=text, empty_layer=not layer, created=created)


def test_steps_have_the_times_of_their_layers_and_others_of_the_layer_before():
    config = ImageConfig(
        history=[
            step("base", created=OLD),
            step("ENV", layer=False),
            step("RUN one"),
            step("RUN two"),
            step("CMD", layer=False),
        ]
    )
    found = dated(config, [None, FIRST, SECOND], NOW)
    assert [one.created for one in found.history] == [OLD, FIRST, FIRST, SECOND, SECOND]
    assert found.created == SECOND


def test_without_new_layers_the_base_gives_the_time():
    config = ImageConfig(history=[step("base", created=OLD), step("ENV", layer=False)])
    found = dated(config, [None], NOW)
    assert (found.created, found.history[-1].created) == (OLD, OLD)


def test_the_clock_only_where_no_time_is_known():
    assert dated(ImageConfig(history=[step("ENV", layer=False)]), [], NOW).created == NOW
    assert dated(ImageConfig(history=None), [FIRST], NOW).created == FIRST


def test_as_many_steps_with_layers_as_there_are_layers():
    more = dated(ImageConfig(history=[step("RUN")]), [FIRST, SECOND], NOW)
    assert [(one.created, one.empty_layer) for one in more.history] == [(FIRST, False), (SECOND, False)]
    fewer = dated(ImageConfig(history=[step("RUN a"), step("RUN b")]), [FIRST], NOW)
    assert [one.empty_layer for one in fewer.history] == [False, True]
