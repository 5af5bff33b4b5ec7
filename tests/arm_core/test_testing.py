"""The contract checks find out what breaks a contract."""

import pytest
import torch

from arm_core import Layout
from arm_core.contracts import SpanOutput
from arm_core.testing import arm_checks, check_windows
from tests.conftest import SpanTableArm, TableArm, TableSpans


class BrokenSpans(TableSpans):
    """Spoils what a span gives: `forgets` what came before the span, or adds `error` to its logits."""

    def __init__(self, arm, slots, window, forgets=False, error=0.0):
        super().__init__(arm, slots, window)
        self.forgets, self.error = forgets, error

    def evaluate(self, x, start, stop):
        where, logits, hidden, work = super().evaluate(x, start, stop)
        if self.forgets:
            places = torch.arange(x.shape[1])
            logits = self.arm(torch.where(places < start[:, None], 0, x)).logits.flatten(0, 1)[where]
        return SpanOutput(where, logits + self.error, hidden, work)


def arm_with(**faults):
    arm = SpanTableArm(Layout(1, 3, 4, 3), granule=1)
    arm.span_cache = lambda slots, window: BrokenSpans(arm, slots, window, **faults)
    return arm


def test_a_cache_that_keeps_its_promise_passes():
    check_windows(arm_with())


def test_a_cache_that_forgets_is_found_out_by_its_samples():
    with pytest.raises(AssertionError, match="window 1: .* of 5 samples differ from the ancestral ones"):
        check_windows(arm_with(forgets=True))


def test_logits_of_spans_that_differ_from_a_pass_are_found_out_though_samples_are_equal():
    with pytest.raises(AssertionError, match=r"window 1: logits differ by 0\.001 from those of a whole pass"):
        check_windows(arm_with(error=1e-3))  # the same for all categories: no argmax changes


def test_windows_are_checked_only_of_arms_that_have_them():
    for build, expected in ((lambda layout: SpanTableArm(layout, 1), 1), (TableArm, 0)):
        names = [name for name, _ in arm_checks(build, [Layout(1, 2, 2, 2)])]
        assert sum("windows" in name for name in names) == expected
