import heapq
import itertools
import json
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


def test_refusals_of_connections_taken_before_the_shrink_count_as_one() -> None:
    window = Window(10)
    assert all(window.take(0.0) for _ in range(10))
    for _ in range(5):
        window.accepted(0.1)
    for _ in range(5):
        window.refused(0.1, "421")
    assert (window.size, window.ceiling, window.in_use) == (5, 5, 5)


def test_greetings_that_come_after_the_first_refusal_still_count() -> None:
    window = Window(10)
    assert all(window.take(0.0) for _ in range(10))
    window.refused(0.1, "421")
    assert window.size == 1
    for _ in range(9):
        window.accepted(0.2)
    assert (window.size, window.ceiling) == (9, 9)


def test_a_refusal_soon_after_a_shrink_halves_the_window() -> None:
    window = Window(8)
    assert all(window.take(0.0) for _ in range(8))
    for _ in range(8):
        window.accepted(0.0)
    window.done(1.0)
    assert window.take(1.0)
    window.refused(1.0, "421 a")
    assert window.size == 7
    window.done(1.0)
    assert window.take(1.0)
    window.refused(1.0, "421 b")
    assert (window.size, window.complaint, window.complained_at) == (3, "421 b", 1.0)


def test_a_failed_dial_frees_the_place_and_changes_nothing() -> None:
    window = Window(1, hourly=1)
    assert window.take(0.0)
    assert not window.take(0.0)
    assert window.wake(0.0) is None
    window.failed(1.0)
    assert (window.size, window.in_use, window.complaint) == (1, 0, "")
    assert window.take(1.0)


def test_complaints_inside_sessions_halve_it_once_in_ten_seconds() -> None:
    window = Window(40)
    window.complained(100.0, "451 4.7.1 too much")
    window.complained(109.9, "451 4.7.1 too much")
    assert window.size == 20
    window.complained(110.0, "451 4.7.1 too much")
    assert window.size == 10
    for second in range(200, 400, 10):
        window.complained(float(second), "451")
    assert window.size == 1


def test_after_complaints_inside_sessions_it_grows_back_but_not_within_ten_seconds() -> None:
    receiver = Receiver(Window(16), 400, lambda _now: 100)
    receiver.run(until=1.0)
    receiver.window.complained(1.0, "451 4.7.1")
    receiver.run(until=10.9)
    assert receiver.window.size == 8
    receiver.run(until=60.0)
    assert receiver.window.size >= 16


def test_it_does_not_grow_while_it_is_not_used_up() -> None:
    window = Window(10)
    for second in range(1000):
        assert window.take(float(second))
        window.accepted(float(second))
        window.done(second + 0.5)
    assert window.size == 10


def test_it_never_grows_beyond_its_most() -> None:
    receiver = Receiver(Window(10, most=12), 2000, lambda _now: 1000)
    receiver.run()
    assert receiver.window.size == 12
    assert receiver.most_open == 12
    assert Window(50, most=12).size == 12


def test_a_ceiling_is_probed_after_one_minute_then_two_then_four() -> None:
    receiver = Receiver(Window(10), 10_000, lambda _now: 20)
    receiver.run(until=900)
    gaps = [b - a for a, b in itertools.pairwise(receiver.refused_at)]
    assert [round(gap / 60) for gap in gaps] == [1, 2, 4]


def test_a_ceiling_that_is_passed_is_forgotten() -> None:
    receiver = Receiver(Window(10), 10_000, lambda now: 20 if now < 60 else 60)
    receiver.run(until=59)
    assert receiver.window.to_json()["ceiling"] == 20
    receiver.run(until=90)
    assert receiver.window.size > 21
    assert receiver.window.to_json()["ceiling"] is None
    receiver.run(until=250)
    assert receiver.window.to_json()["ceiling"] == 60


def test_a_back_off_ends_by_itself_and_a_shorter_one_does_not_shorten_it() -> None:
    window = Window(2)
    window.back_off(0.0, 3600.0, "550 5.7.1 blocked")
    window.back_off(1.0, 60.0, "550 5.7.1 again")
    assert not window.take(3599.0)
    assert window.wake(3599.0) == 1.0
    assert window.take(3600.0)
    assert window.complaint == "550 5.7.1 again"


def test_never_more_than_the_hourly_figure_in_any_hour() -> None:
    receiver = Receiver(Window(10, hourly=100), 350, lambda _now: 100)
    taken: list[float] = []
    real = receiver._greet

    def greet(message: int) -> None:
        taken.append(receiver.now)
        real(message)

    receiver._greet = greet  # type: ignore[method-assign]
    receiver.run()
    assert len(receiver.order) == 350
    # The greeting comes 0.045 to 0.055 s after the taking.
    assert all(
        later - first > 3600 - 0.02 for first, later in zip(taken, taken[100:], strict=False)
    )
    assert receiver.now < 3 * 3661 + 60


def test_what_was_refused_does_not_count_for_the_hour() -> None:
    window = Window(5, hourly=1)
    assert window.take(0.0)
    window.refused(0.0, "421")
    assert window.wake(0.0) == 1.0
    assert window.take(1.0)
    window.accepted(1.0)
    window.done(2.0)
    assert not window.take(2.0)
    assert window.wake(2.0) == 3658.0


def test_the_rate_is_of_the_last_30_seconds_with_a_connection_open() -> None:
    window = Window(10)
    assert window.rate(0.0) == 0.0
    receiver = Receiver(window, 400, lambda _now: 10, service=1.0, greeting=0.001)
    receiver.run()
    assert 9 < window.rate(receiver.now) < 13
    assert window.rate(receiver.now + 10_000) == window.rate(receiver.now), "idle time counts"
    assert window.take(receiver.now)
    window.accepted(receiver.now)
    assert window.rate(receiver.now + 40) == 0.0, "a receiver that hangs has no rate"


def test_it_is_kept_over_a_restart() -> None:
    window = Window(10)
    receiver = Receiver(window, 400, lambda _now: 20)
    receiver.run()
    again = Window.from_json(json.loads(json.dumps(window.to_json())), start=10)
    assert (again.size, again.ceiling, again.in_use) == (20, 20, 0)
    assert again.complaint == "421 too many connections"
    later = Receiver(again, 1500, lambda _now: 20)
    later.run(until=55)
    assert later.refused == 0, "a known ceiling is not probed at once"
    later.run()
    assert later.refused == 1


@pytest.mark.parametrize(
    "kept",
    [None, [], "x", {"size": "9"}, {"size": 0, "ceiling": -1, "probe": 1, "complaint": 5},
     {"size": True, "probe": 1e9}, {"probe": float("nan")}],
)  # fmt: skip
def test_kept_nonsense_makes_a_new_window(kept: object) -> None:
    assert Window.from_json(kept, start=7).to_json() == Window(7).to_json()


def test_a_kept_size_is_not_above_the_most() -> None:
    assert Window.from_json({"size": 500, "ceiling": 400}, start=10, most=50).size == 50


def test_what_ends_must_have_begun() -> None:
    for end in (Window.done, Window.accepted, Window.failed):
        with pytest.raises(ValueError, match="no connection"):
            end(Window(1), 0.0)
    with pytest.raises(ValueError, match="no connection"):
        Window(1).refused(0.0, "421")
    with pytest.raises(ValueError, match="1 or more"):
        Window(0)


def test_ten_thousand_receivers_whose_limits_change() -> None:
    """Receiver checks at every step: no place is given beyond the size, what is in use is what is
    open or dialled, and whatever waits has something that will move it. Here: all arrive, few are
    refused, the receiver is never above its limit, and none waits longer than one by one takes."""
    for seed in range(10_000):
        dice = random.Random(seed)  # noqa: S311 (the same cases in each run)
        limits = [dice.choice((0, 1, 2, 5, 20)) for _ in range(dice.randrange(3))]
        last = dice.choice((1, 3, 12))
        step = dice.uniform(0.5, 8.0)

        def limit(
            now: float, limits: list[int] = limits, last: int = last, step: float = step
        ) -> int:
            number = int(now / step)
            return limits[number] if number < len(limits) else last

        start = dice.choice((1, 2, 5, 10))
        receiver = Receiver(
            Window(start), 30, limit, dice.uniform(0.1, 2.0), dice.uniform(0.001, 0.3), seed
        )
        receiver.run()
        assert sorted(receiver.order) == list(range(30)), f"seed {seed}: not all arrived"
        assert receiver.window.in_use == 0
        assert receiver.most_open <= max(start, last, *limits, 1), f"seed {seed}"
        assert receiver.refused <= 10 + start * (len(limits) + 1), f"seed {seed}"
        assert receiver.now <= 3 * 8.0 + 64 + 30 * 2.8, f"seed {seed}: slower than one by one"


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_it_grows_back_when_a_limit_is_lifted(limit: int) -> None:
    receiver = Receiver(Window(10), 20_000, lambda now: limit if 30 < now < 90 else 30)
    receiver.run(until=90)
    assert receiver.window.size <= limit + 1
    receiver.run(until=600)
    assert receiver.window.size >= 29


def test_messages_go_in_the_order_in_which_they_wait() -> None:
    receiver = Receiver(Window(1, most=1), 50, lambda _now: 1)
    receiver.run()
    assert receiver.order == list(range(50))
