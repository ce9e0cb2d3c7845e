from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobs.verbs.words import age_text, size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2026-02-03T11:59:30.000000Z", "just now"),
        ("2026-02-03T11:59:00.000000Z", "1 min ago"),
        ("2026-02-03T10:00:00.000000Z", "2 h ago"),
        ("2026-01-01T12:00:00.000000Z", "33 d ago"),
        ("2026-02-04T12:00:00.000000Z", "just now"),
    ],
)
def test_ages(created: str, text: str) -> None:
    assert age_text(created, datetime(2026, 2, 3, 12, tzinfo=UTC)) == text
