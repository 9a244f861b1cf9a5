from ratelimitd.server.latency import BOUNDS_S, Histogram


def test_a_duration_counts_in_every_bucket_that_it_fits_into() -> None:
    histogram = Histogram()
    histogram.observe(0.0001)
    histogram.observe(0.00011, 3)
    histogram.observe(100.0)
    counts = dict(histogram.cumulative())
    assert counts["0.0001"] == 1
    assert counts["0.00025"] == counts[str(BOUNDS_S[-1])] == 4
    assert counts["+Inf"] == 5
    assert abs(histogram.total_s - 100.00043) < 1e-9
