from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from downloader.inspecting.charts import HEIGHT, HOURS, MINUTES, WIDTH, draw

NOW = datetime(2026, 3, 1, 20, 30, 15, tzinfo=UTC)


def test_an_hour_each() -> None:
    """Each hour of the last day has its place, the one of now the last; what is older has none."""
    found = {"2026-03-01 20:00:00": 5, "2026-02-28 21:00:00": 10, "2026-02-28 20:00:00": 99}
    chart = draw("Runs", HOURS, found, NOW, str)
    assert [bar.told for bar in chart.bars] == ["21:00 UTC: 10", "20:00 UTC: 5"]
    first, last = chart.bars
    assert (first.x, last.x) == (0, WIDTH / 24 * 23)
    assert first.height == 2 * last.height
    assert (chart.most, chart.sum) == ("10", "15")
    assert [label.text for label in chart.labels] == ["21:00", "03:00", "09:00", "15:00"]


def test_nothing_saved() -> None:
    """Without anything saved there is no bar."""
    chart = draw("Runs", MINUTES, {}, NOW, str)
    assert (chart.bars, chart.most, chart.sum) == ([], "0", "0")
    assert [label.text for label in chart.labels] == ["19:31", "19:46", "20:01", "20:16"]


@given(
    values=st.dictionaries(st.integers(0, 59), st.integers(0, 2**63 - 1)),
    now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - what Hypothesis wants
)
def test_every_bar_can_be_seen(values: dict[int, int], now: datetime) -> None:
    """Bars stay within the drawing, in their order, and what is not 0 is high enough to be seen."""
    minute = now.replace(second=0, microsecond=0)
    found = {
        (minute - timedelta(minutes=back)).strftime("%Y-%m-%d %H:%M:00"): value
        for back, value in values.items()
    }
    chart = draw("Bytes", MINUTES, found, now, str)
    assert len(chart.bars) == sum(value > 0 for value in values.values())
    assert [bar.x for bar in chart.bars] == sorted(bar.x for bar in chart.bars)
    for bar in chart.bars:
        assert 0 <= bar.x < bar.x + bar.width <= WIDTH
        assert 0 < bar.y < bar.y + bar.height < HEIGHT
        assert bar.height >= 1
