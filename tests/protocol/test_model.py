"""In every state of the model a proof is right. In another order of the poll, or with one rule
less, it is not.
"""

from __future__ import annotations

import pytest

from . import recovery
from .model import ORDER, ORDERS, RULES, violations


@pytest.mark.parametrize("drained", [False, True])
def test_proof_is_right_in_every_state_of_the_model(drained: bool) -> None:
    assert violations(drained=drained) == []


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_poll_in_another_order_is_wrong_where_it_reads_earlier(
    order: tuple[str, ...], drained: bool
) -> None:
    """Reading before arming leaves a worker deaf; reading before registering lets it
    serve unseen.
    """
    assert (violations(order, drained=drained) == []) is (order[-1] == ORDER[-1])


@pytest.mark.parametrize("rule", sorted(RULES))
def test_proof_without_any_of_its_rules_is_wrong(rule: str) -> None:
    assert any(violations(rules=RULES - {rule}, drained=drained) for drained in (False, True))


def test_newest_knowledge_or_a_decision_holds_after_a_loss() -> None:
    assert next(recovery.violations(), None) is None


@pytest.mark.parametrize("rule", sorted(recovery.RULES))
def test_restoration_without_any_of_its_rules_is_wrong(rule: str) -> None:
    assert next(recovery.violations(recovery.RULES - {rule}), None) is not None
