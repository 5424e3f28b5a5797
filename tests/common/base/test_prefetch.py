"""Items prepared in the background."""

import threading
import time

import pytest

from common.base.prefetch import prefetch


def threads() -> int:
    return threading.active_count()


def wait_until(condition, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_items_come_in_order_each_once(depth):
    assert list(prefetch(iter(range(20)), depth)) == list(range(20))


def test_no_items_give_none():
    assert list(prefetch([])) == []


def test_none_and_false_are_items_like_others():
    assert list(prefetch([None, False, 0])) == [None, False, 0]


def test_items_are_made_ahead_up_to_the_depth_and_no_further():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    loop = prefetch(items(), depth=3)
    assert next(loop) == 0
    # one used, three waiting, one in the thread's hand
    assert wait_until(lambda: len(made) == 5)
    time.sleep(0.2)
    assert len(made) == 5
    loop.close()


def test_items_are_made_in_another_thread():
    names = list(prefetch(threading.current_thread().name for _ in range(2)))
    assert threading.current_thread().name not in names


def test_error_is_raised_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("damaged")

    got = []
    with pytest.raises(ValueError, match="damaged"):
        got.extend(prefetch(items()))
    loop = prefetch(items())
    assert [next(loop), next(loop)] == [1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(loop)


def test_error_before_the_first_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(prefetch(1 // number for number in (0, 1)))


def test_an_interrupt_in_the_thread_reaches_the_loop():
    def items():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(prefetch(items()))


def test_leaving_the_loop_early_stops_the_thread():
    before = threads()
    for number in prefetch(iter(range(1_000_000)), depth=1):
        if number == 3:
            break
    assert wait_until(lambda: threads() == before)


def test_an_error_in_the_loop_stops_the_thread():
    before = threads()
    loop = prefetch(iter(range(1_000_000)), depth=1)

    def consume():
        for _ in loop:
            raise RuntimeError("consumer")

    with pytest.raises(RuntimeError, match="consumer"):
        consume()
    loop.close()
    assert threads() == before


def test_a_finished_loop_leaves_no_thread():
    before = threads()
    list(prefetch(range(5)))
    assert threads() == before
