"""The usage sample, scaled to a period."""

from datetime import UTC, datetime

from demo import focus_sample

START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def test_sample_has_73_customers_267_skus_and_1000_deltas() -> None:
    """The demo promises to load as many."""
    loaded = (
        len(focus_sample.customers()),
        len(focus_sample.prices()),
        len(focus_sample.deltas(START, NOW)),
    )

    assert loaded == (73, 267, 1000)


def test_deltas_lie_in_the_elapsed_part_of_the_period() -> None:
    """Usage in the future is rejected, and usage of another month would be billed there."""
    moments = [delta.moment for delta in focus_sample.deltas(START, NOW)]

    assert min(moments) >= START
    assert max(moments) <= NOW


def test_slugs_are_unique() -> None:
    """A slug names one organization."""
    slugs = [customer.slug for customer in focus_sample.customers()]

    assert len(set(slugs)) == len(slugs)
