"""Whether an order is paid; until now all were, and a row written meanwhile would be counted
wrongly.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("orders", sa.Column("paid", sa.Boolean))
    time.sleep(1)  # as long as a large table takes
    op.execute("UPDATE orders SET paid = 1")


def downgrade() -> None:
    op.drop_column("orders", "paid")
