"""Brings MLflow's database to the schema of this MLflow: a server refuses to start on an older one.

What `mlflow db upgrade` does, with the address from MLFLOW_BACKEND_STORE_URI instead of an argument, which everybody on
the node could read. Safe to run again; replicas that start at once wait for one another on a PostgreSQL advisory lock.
"""

import os
import sys
import time

import mlflow.store.db.utils as db
import sqlalchemy
from mlflow.db import upgrade

LOCK = 0x6C616B65  # "lake"


def wait_reachable(engine: sqlalchemy.Engine, seconds: float) -> None:
    """Returns once the database answers; ends the process with its last words after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with engine.connect():
                return
        except sqlalchemy.exc.OperationalError as error:
            if time.monotonic() > deadline:
                sys.exit(f"the database did not answer for {seconds:.0f} s: {error.orig}")
            time.sleep(1)


def main() -> None:
    url = os.environ["MLFLOW_BACKEND_STORE_URI"]
    engine = sqlalchemy.create_engine(url)
    wait_reachable(engine, 300)
    if engine.dialect.name != "postgresql":
        upgrade.callback(url)
        return
    # On a connection of its own, in autocommit: an idle transaction would hold up the migration's locks.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
        if db._all_tables_exist(engine) and db._get_schema_version(engine) == db._get_latest_schema_revision():
            print("the schema is up to date")
        else:
            upgrade.callback(url)


if __name__ == "__main__":
    main()
