"""Lines of progress: now and then, with a rate of this process alone and the time that is left."""

from jobs.imports.meter import LINE_SECONDS, Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_now_and_then_with_rate_and_time_left() -> None:
    said: list[str] = []
    clock = Clock()
    meter = Meter("read", 20_000, said.append, clock)
    meter.at(30_000, 815_072)
    clock.now += LINE_SECONDS + 2
    meter.at(120_000, 815_072)
    clock.now += LINE_SECONDS / 2
    meter.at(130_000, 815_072)
    clock.now += 100
    meter.at(200_000, 6_000_000, is_estimate=True)
    meter.at(815_072, 815_072, is_last=True)
    assert said == [
        "read 120,000 of 815,072 rows (25,000 rows/s, 28 s left)",
        "read 200,000 of ~6,000,000 rows (1,714 rows/s, 56 min 23 s left)",
        "read 815,072 of 815,072 rows (7,572 rows/s)",
    ]
    assert meter.seconds == 105.0


def test_nothing_done_yet_has_no_end_in_sight() -> None:
    said: list[str] = []
    clock = Clock()
    meter = Meter("placed", 0, said.append, clock)
    clock.now += LINE_SECONDS
    meter.at(0, 5)
    clock.now += 10_000
    meter.at(1, 5)
    assert said == ["placed 0 of 5 rows (0 rows/s)", "placed 1 of 5 rows (0 rows/s, 11 h 6 min left)"]
