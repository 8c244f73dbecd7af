"""A writer in Python with psycopg2, as a back office would have one: groups of rows stay equal in every transaction.

writer.py URL SCHEMA NAME TRANSACTIONS
"""

import io
import random
import sys
from urllib.parse import quote

import psycopg2
from psycopg2.extras import execute_values

url, schema, name, transactions = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
connection = psycopg2.connect(url, options="-c search_path=" + quote(schema))
chance = random.Random(name)

INSERT = "INSERT INTO inventory (merchant_id, branch_id, id, name, reorder_level_milli) VALUES %s"


def update(cursor, branch, group):
    one = "UPDATE inventory SET reorder_level_milli = reorder_level_milli + 1000 WHERE merchant_id = 'm' AND branch_id = %s AND id = %s"
    cursor.executemany(one, [(branch, f"{group}-{n}") for n in (1, 2, 3)])


def upsert(cursor, branch, group):
    rows = [("m", branch, f"{group}-{n}", "x", 1000) for n in (1, 2, 3)]
    conflict = " ON CONFLICT (merchant_id, branch_id, id) DO UPDATE SET reorder_level_milli = inventory.reorder_level_milli + 1000"
    execute_values(cursor, INSERT + conflict, rows)


def copy(cursor, branch, group):
    rows = "".join(f"m\t{branch}\tcopy.{name}.{n}-{member}\tx\t1000\n" for member in (1, 2, 3))
    cursor.copy_expert("COPY inventory (merchant_id, branch_id, id, name, reorder_level_milli) FROM STDIN", io.StringIO(rows))


for n in range(transactions):
    branch, group = chance.choice("abc"), f"g{chance.randrange(4)}"
    with connection.cursor() as cursor:
        own = [("m", branch, f"{name}.{n}-{member}", "x", 1000) for member in (1, 2, 3)]
        execute_values(cursor, INSERT, own[:2])
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"{branch}/{group}",))
        chance.choice([update, update, upsert, copy])(cursor, branch, group)
        execute_values(cursor, INSERT, own[2:])
    if chance.random() < 0.1:
        connection.rollback()
    else:
        connection.commit()
connection.close()
