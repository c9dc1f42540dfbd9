"""Times of an image that was built: of its steps, its layers and itself, so that what is cached gives the same image.

The time of a step is that of the layer it made; one that made none has that of the first layer that is new, and after
that of the layer before it.  No clock is read: a build that makes nothing new makes the same image again.  (BuildKit's
exporter/containerimage/writer.go.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.oci.config import History

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.oci.config import ImageConfig

_FILLER = "buildkit.exporter.image.v0"


def dated(config: ImageConfig, made: Sequence[str | None], now: str) -> ImageConfig:
    """The configuration with times; ``made``: when each of its layers was made, None where nobody knows.

    Steps have as many layers as there are afterwards: a layer without a step gets one.  ``now``: the time where no
    step and no layer has one.
    """
    steps = _matched(list(config.history or ()), len(made))
    times = iter(made)
    for number, step in enumerate(steps):
        if not step.empty_layer:
            time = next(times, None)
            steps[number] = step if step.created else msgspec.structs.replace(step, created=time)
    steps = _filled(steps)
    created = config.created or next((step.created for step in reversed(steps) if step.created), None) or now
    steps = [step if step.created else msgspec.structs.replace(step, created=created) for step in steps]
    return msgspec.structs.replace(config, created=created, history=steps or None)


def _matched(steps: list[History], layers: int) -> list[History]:
    """The steps, of which as many have layers as there are layers: missing ones are put behind, others are empty."""
    told = 0
    for number, step in enumerate(steps):
        if step.empty_layer:
            continue
        told += 1
        if told > layers:
            steps[number] = msgspec.structs.replace(step, empty_layer=True)
    return steps + [History(created_by=_FILLER, comment=_FILLER) for _ in range(layers - told)]


def _filled(steps: list[History]) -> list[History]:
    """The steps with the time of the first new layer, then of the one before, where they have none."""
    first: str | None = None
    missing = False
    for step in steps:
        if step.created:
            first = step.created
            if missing:
                break
        else:
            missing = True
    found = []
    missing = False
    for step in steps:
        if step.created:
            first = step.created if missing else first
            found.append(step)
        else:
            missing = True
            found.append(msgspec.structs.replace(step, created=first))
    return found
