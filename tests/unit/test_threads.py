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


def test_work_in_a_thread_of_its_own_waits_for_no_others():
    """The shared threads may all be taken."""
    let = threading.Event()

    async def main():
        taken = [asyncio.ensure_future(asyncio.to_thread(let.wait, 10)) for _ in range(64)]
        await asyncio.sleep(0)
        try:
            assert await threads.in_own_thread(lambda: divmod(7, 2)) == (3, 1)
            with pytest.raises(ZeroDivisionError):
                await threads.to_the_end(threads.in_own_thread(lambda: divmod(7, 0)))
            assert not any(one.done() for one in taken)
        finally:
            let.set()
            await asyncio.gather(*taken)

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
