from __future__ import annotations

import numpy as np
import pytest

from fivefold.report.mistakes import EXCERPT, worst_mistakes


def test_mistakes_are_wrong_worst_first_and_at_most_twenty(make, tasks):
    for task in tasks.values():
        found = worst_mistakes(make(task, rows=300))
        assert 0 < len(found) <= 20
        assert [m.loss for m in found] == sorted((m.loss for m in found), reverse=True)
        for mistake in found:
            assert mistake.true != mistake.predicted
            assert mistake.loss == pytest.approx(-np.log(mistake.true_probability))
            assert len(mistake.excerpt) <= EXCERPT


def test_every_target_has_its_share(make, tasks):
    found = worst_mistakes(make(tasks["tree"], rows=400))
    assert {mistake.target for mistake in found} == {"area", "field"}


def test_worst_mistake_is_the_one_with_the_greatest_loss(make, tasks):
    content = make(tasks["categorical"], rows=300)
    probabilities, codes = content.scores.probabilities(), content.labels.codes[:, 0]
    wrong = np.flatnonzero((codes >= 0) & (content.decisions[:, 0] != codes))
    row = wrong[probabilities[wrong, codes[wrong]].argmin()]
    worst = worst_mistakes(content)[0]
    assert worst.id == f"row {row}"
    assert worst.true_probability == pytest.approx(probabilities[row, codes[row]], rel=1e-4)
    assert worst.predicted_probability == pytest.approx(probabilities[row].max(), rel=1e-4)


def test_nothing_wrong_gives_no_mistakes(make, tasks):
    content = make(tasks["mixed"])
    content.decisions[:] = content.labels.codes
    assert worst_mistakes(content) == ()
