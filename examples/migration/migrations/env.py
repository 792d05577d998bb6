"""How Alembic reaches the shop's database."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine

engine = create_engine(f"sqlite:///{os.environ.get('SHOP_DATABASE', 'shop.db')}")

with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
