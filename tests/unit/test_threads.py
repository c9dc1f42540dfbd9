"""Work in threads: who is cancelled waits for its end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ketch import threads


def test_results_and_errors():
    async def main():
        assert await threads.run_to_end(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await threads.run_to_end(divmod, 7, 0)

    asyncio.run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_caller_waits_also_when_it_is_cancelled_again(fails):
    begun, let, stopped, ended = threading.Event(), threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        let.wait()
        ended.set()
        if fails:
            raise ValueError("of nobody's concern")

    async def main():
        task = asyncio.create_task(threads.to_the_end(asyncio.to_thread(work), stopped.set))
        await asyncio.to_thread(begun.wait)
        for _ in range(3):
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        assert stopped.is_set() and not task.done() and not ended.is_set()
        let.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(main())
