import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable

import pytest

from entrypoint.delivery.windows import Window


class Receiver:
    """A receiver that takes `limit(now)` connections at once, each for `service` seconds, and a
    queue of messages before a window to it. Time is a number."""

    def __init__(
        self,
        window: Window,
        messages: int,
        limit: Callable[[float], int],
        service: float = 2.0,
        greeting: float = 0.05,
        seed: int = 1,
    ) -> None:
        self.window, self.limit, self.service, self.greeting = window, limit, service, greeting
        self.random = random.Random(seed)  # noqa: S311 (a case comes again)
        self.queue = deque(range(messages))
        self.order: list[int] = []
        self.now = 0.0
        self.open = self.dialled = self.refused = self.most_open = 0
        self.refused_at: list[float] = []
        self._events: list[tuple[float, int, str, int]] = []
        self._number = itertools.count()

    def run(self, until: float = 100_000.0) -> None:
        self._pump()
        while self._events and self._events[0][0] <= until:
            self.now, _, kind, message = heapq.heappop(self._events)
            if kind == "greeting":
                self._greet(message)
            elif kind == "end":
                self.open -= 1
                self.window.done(self.now)
            self._pump()

    def _greet(self, message: int) -> None:
        self.dialled -= 1
        if self.open >= self.limit(self.now):
            self.refused += 1
            self.refused_at.append(self.now)
            self.queue.appendleft(message)
            self.window.refused(self.now, "421 too many connections")
            return
        self.open += 1
        self.order.append(message)
        self.window.accepted(self.now)
        self.most_open = max(self.most_open, self.open)
        self._later(self.service, "end", message)

    def _pump(self) -> None:
        while self.queue:
            before = self.window.in_use
            if not self.window.take(self.now):
                break
            assert before < self.window.size, "a place was given that the window does not have"
            self.dialled += 1
            self._later(self.greeting, "greeting", self.queue.popleft())
        assert self.window.in_use == self.open + self.dialled
        if self.queue and (wait := self.window.wake(self.now)) is not None:
            assert wait > 0, "take says no, and wake says now"
            heapq.heappush(self._events, (self.now + wait, next(self._number), "wake", -1))
        if self.queue:
            assert self._events, "messages wait, and nothing will ever move them"

    def _later(self, seconds: float, kind: str, message: int) -> None:
        at = self.now + seconds * self.random.uniform(0.9, 1.1)
        heapq.heappush(self._events, (at, next(self._number), kind, message))


@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_messages_to_a_receiver_that_takes_20_at_once(seed: int) -> None:
    receiver = Receiver(Window(10), 1000, lambda _now: 20, seed=seed)
    receiver.run()
    assert len(receiver.order) == 1000
    assert receiver.now <= 1.15 * 100
    assert receiver.refused <= 5
    assert receiver.window.size == 20


@pytest.mark.parametrize("seed", range(5))
def test_a_limit_that_drops_from_20_to_5_is_found_within_about_5_refusals(seed: int) -> None:
    receiver = Receiver(Window(10), 1000, lambda now: 20 if now < 50 else 5, seed=seed)
    receiver.run(until=100)
    assert len([at for at in receiver.refused_at if at >= 50]) <= 6
    assert receiver.window.size == 5
    receiver.run()
    assert len(receiver.order) == 1000
    assert receiver.now <= 1.15 * (50 + 500 / 2.5)


def test_a_receiver_that_refuses_everything_is_tried_by_one_with_growing_pauses() -> None:
    receiver = Receiver(Window(10), 2000, lambda now: 0 if now < 500 else 20)
    receiver.run(until=499)
    later = receiver.refused_at[10:]  # the first ten were dialled at once
    pauses = [b - a for a, b in itertools.pairwise(later)]
    assert all(b > a * 1.5 or b > 59 for a, b in itertools.pairwise(pauses))
    assert max(pauses) < 61
    assert receiver.window.size == 1
    receiver.run(until=650)
    assert receiver.window.size >= 19
    receiver.run()
    assert sorted(receiver.order) == list(range(2000))


def test_a_hold_ends_by_itself_or_by_release() -> None:
    window = Window(2)
    window.hold(30.0)
    assert not window.take(29.9)
    assert window.wake(10.0) == 20.0
    assert window.take(30.0)
    window.hold(math.inf)
    assert not window.take(1e9)
    assert window.wake(1e9) is None
    window.release()
    assert window.held_until is None
    assert window.take(1e9)
