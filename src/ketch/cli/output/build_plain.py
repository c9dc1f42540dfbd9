"""A build as plain lines, for logs and pipes: in the form of ``docker buildx build --progress=plain``.

One step at a time is written; it gives way to another one when it has ended, or has been written for long enough.
"""

from __future__ import annotations

from collections import deque

from ketch.cli.output.build_state import BuildState, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.cli.output.build_state import BuildStep, Message, StepPart

_EVERY_S = 0.1  # between two writings
_TURN_S, _LONGEST_WAIT_S = 5.0, 10.0  # of a step, before others are written; of a step that waits
_PART_S, _PART_SHARE = 5.0, 0.05  # between two lines about a part: this time, or this much of it
_KEPT = 10  # lines of a step that failed, shown again at the end
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(number: int) -> str:
    """``2B``, ``1.06kB``, ``4.60MB``."""
    value, unit = float(number), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.2f}{_UNITS[unit]}" if unit else f"{number}B"


def amount(part: StepPart) -> str:
    """The bytes of a part so far, and all of them where that is known."""
    if part.total:
        return f"{size(part.current)} / {size(part.total)}"
    return size(part.current) if part.current else ""


class StepOutput:
    """A step's output, cut into lines; the last line may not have ended yet."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.open = False
        self.kept: deque[bytes] = deque(maxlen=_KEPT)

    def feed(self, seconds: float, data: bytes) -> None:
        """Take a piece of output that came at this time."""
        if not data:
            return
        *whole, rest = data.split(b"\n")
        for number, line in enumerate([*whole, rest] if rest else whole):
            if number == 0 and self.open:
                self.lines[-1] += line
            else:
                figures = 3 if seconds < 10 else 2 if seconds < 100 else 1
                self.lines.append(f"{seconds:.{figures}f} ".encode() + line)
        self.open = bool(rest)


class _Written:
    """The writing of one step."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.output = StepOutput()
        self.written = 0  # bytes of the first line
        self.warnings = 0
        self.parts: dict[str, tuple[int, int]] = {}  # what was last written of a part: its time, its bytes


class PlainView:
    """Writes lines to ``write`` as messages come; ``now`` is the time in seconds."""

    def __init__(self, write: Callable[[str], object], headline: str = "") -> None:
        self._write = write
        self._headline = headline
        self.state = BuildState()
        self._numbers: dict[str, _Written] = {}
        self._pending: dict[str, BuildStep] = {}
        self._changes: dict[str, tuple[int, float]] = {}  # how many since when
        self._current: BuildStep | None = None
        self._begun = False
        self._next = 0.0

    def feed(self, message: Message, now: float) -> None:
        """Take a message; lines are written at most ten times a second."""
        for step in self.state.update(message):
            count, since = self._changes.get(step.digest, (0, now))
            self._changes[step.digest] = (count + 1, since if count else now)
            self._pending[step.digest] = step
        if now >= self._next:
            self.refresh(now)
            self._next = now + _EVERY_S

    def refresh(self, now: float) -> None:
        """Write what has come."""
        ended = [step for step in self._pending.values() if step.completed_at is not None]
        running = {key: step for key, step in self._pending.items() if step.completed_at is None}
        current, ended_current = self._current, False
        for step in sorted(ended, key=lambda step: (step is not current, step.completed_at)):
            ended_current = ended_current or step is current
            self._step(step)
        if not running:
            if current is None or ended_current or current.completed_at is not None:
                open_one = next((s for s in self.state.steps if s.completed_at is None), None)
                if open_one is not None:
                    self._step(open_one)
            return
        if current is not None and current.digest in running:
            self._step(current)
        chosen = self._next_step(running, now, free=current is None or ended_current)
        if chosen is not None:
            self._step(chosen)

    def _next_step(self, running: dict[str, BuildStep], now: float, *, free: bool) -> BuildStep | None:
        """The step that is written next: one that changes much, or has waited too long; None: the present one."""
        current = self._current
        candidates = dict(running)
        if current is not None and current.completed_at is None:
            candidates[current.digest] = current
        speeds: dict[str, float] = {}
        waiting: BuildStep | None = None
        for key, step in candidates.items():
            count, since = self._changes.get(key, (0, now))
            speeds[key] = count / max(now - since, 1e-6)
            if step is not current and now - since > _LONGEST_WAIT_S:
                waiting = step
        fastest = waiting or candidates[max(speeds, key=lambda key: speeds[key])]
        if free or current is None or waiting is not None:
            return fastest
        share = speeds.get(current.digest, 0.0) / (sum(speeds.values()) or 1.0)
        _, since = self._changes.get(current.digest, (0, now))
        return fastest if share < 1 and _TURN_S / (1 - share) < now - since else None

    def close(self, now: float) -> None:
        """Write the rest, and the last lines of what failed."""
        self.refresh(now)
        for step in self.state.steps:
            if step.error and not step.canceled:
                kept = self._of(step).output.kept
                body = "".join(f"{line.decode(errors='replace')}\n" for line in kept)
                self._write(f"------\n > {step.name}:\n{body}------\n")

    def _of(self, step: BuildStep) -> _Written:
        known = self._numbers.get(step.digest)
        if known is None:
            known = self._numbers[step.digest] = _Written(len(self._numbers) + 1)
        return known

    def _line(self, step: BuildStep, text: str) -> None:
        self._write(f"#{self._of(step).number} {text}\n")

    def _step(self, step: BuildStep) -> None:
        """Write what is new of a step."""
        self._begin(step)
        is_open = self._parts(step)
        written = self._of(step)
        for warning in step.warnings[written.warnings :]:
            short = warning.get("short") or ""
            self._line(step, f"WARN: {text_of(short)}")
        written.warnings = len(step.warnings)
        self._output(step, written)
        self._pending.pop(step.digest, None)
        self._current = step
        if step.completed_at is not None and not is_open:
            self._end(step, written)

    def _begin(self, step: BuildStep) -> None:
        current = self._current
        if step is current:
            return
        if current is not None:
            left = self._of(current)
            if left.output.open:
                self._write("\n")
            left.written = 0
            self._changes.pop(current.digest, None)
            self._write(f"#{left.number} ...\n")
        if self._begun:
            self._write("\n")
        elif self._headline:
            self._write(f"#0 {self._headline}\n\n")
        self._begun = True
        self._line(step, step.name)

    def _parts(self, step: BuildStep) -> bool:
        """Write what is new of a step's parts; whether one goes on after the step."""
        written, goes_on = self._of(step).parts, False
        for part in step.take_parts():
            at = part.timestamp or 0
            if part.name in written and part.completed is None:
                before, current = written[part.name]
                moved = (part.current - current) / part.total if part.total > 0 else 0.0
                if moved < _PART_SHARE and (at - before) / 1e9 < _PART_S:
                    continue
            written[part.name] = (at, part.current)
            goes_on = goes_on or part.completed is None
            self._line(step, _part_line(part))
        return goes_on

    def _output(self, step: BuildStep, written: _Written) -> None:
        output = written.output
        for seconds, data in step.take_output():
            output.feed(seconds, data)
        for number, line in enumerate(output.lines):
            text = line.decode(errors="replace")
            if number == 0 and written.written:
                text = line[written.written :].decode(errors="replace")
            else:
                text = f"#{written.number} {text}"
            last = number == len(output.lines) - 1
            self._write(text if last and output.open else f"{text}\n")
            if not (last and output.open):
                output.kept.append(line)
        output.lines = output.lines[-1:] if output.open else []
        written.written = len(output.lines[0]) if output.lines else 0

    def _end(self, step: BuildStep, written: _Written) -> None:
        self._current = None
        self._changes.pop(step.digest, None)
        if written.output.open:
            self._write("\n")
            written.output.kept.append(written.output.lines[0])
            written.output.lines, written.output.open, written.written = [], False, 0
        if step.canceled:
            self._line(step, "CANCELED")
        elif step.error:
            self._line(step, f"ERROR: {step.error}")
        elif step.cached:
            self._line(step, "CACHED")
        else:
            self._line(step, f"DONE {step.seconds(0):.1f}s")


def _part_line(part: StepPart) -> str:
    words = [part.name]
    if moved := amount(part):
        words.append(moved)
    end = part.completed if part.completed is not None else part.timestamp
    if part.started is not None and end is not None and end - part.started > 10_000_000:
        words.append(f"{(end - part.started) / 1e9:.1f}s")
    if part.completed is not None:
        words.append("done")
    return " ".join(words)
