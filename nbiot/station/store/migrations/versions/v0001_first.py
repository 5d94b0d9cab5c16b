"""The first schema. Migrations never change once they are released: write the next one."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

GIVEN = "('bound', 'proven', 'failed', 'returned')"


def upgrade() -> None:
    """Tables and indexes, then the triggers that hold what no program may do."""
    _tables()
    if op.get_context().dialect.name == "sqlite":
        _sqlite_triggers()
    else:
        _postgresql_triggers()


def _tables() -> None:
    id_type = sa.BigInteger().with_variant(sa.Integer, "sqlite")

    def texts(*names: str) -> list[sa.Column[str]]:
        return [sa.Column(n, sa.Text, nullable=False, server_default=sa.text("''")) for n in names]

    op.create_table(
        "credential",
        sa.Column("id", id_type, primary_key=True),
        sa.Column("product_key", sa.Text, nullable=False),
        sa.Column("device_key", sa.Text, nullable=False, unique=True),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("pooled", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("lease_until", sa.Double),
        *(sa.Column(n, sa.Text) for n in ("station", "slot", "incarnation", "run", "imei")),
        *(sa.Column(n, sa.Text) for n in ("claim_iccid", "iccid", "module_serial", "given_run")),
        sa.Column("retry_allowed", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("added", sa.Double, nullable=False),
        sa.Column("changed", sa.Double, nullable=False),
        sa.CheckConstraint(
            "state IN ('free', 'claimed', 'bound', 'proven', 'failed', 'returned')",
            name="credential_states",
        ),
        sa.CheckConstraint(
            "state IN ('free', 'returned') OR imei IS NOT NULL", name="credential_has_imei"
        ),
        sa.CheckConstraint("state <> 'free' OR imei IS NULL", name="credential_free"),
    )
    active = sa.text("state <> 'returned'")
    op.create_index("credential_pool", "credential", ["state", "product_key", "id"])
    op.create_index(
        "credential_imei",
        "credential",
        ["imei"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )
    op.create_index("credential_run", "credential", ["run"], unique=True)
    op.create_index("credential_station", "credential", ["station"])
    op.create_table(
        "run",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("station", sa.Text, nullable=False),
        sa.Column("slot", sa.Text, nullable=False),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("ended", sa.Double, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("serial_number", sa.Text, nullable=False),
        *(sa.Column(n, sa.Text) for n in ("imei", "product_key", "device_key")),
        sa.Column("credential", sa.BigInteger),
        sa.Column("fence", sa.BigInteger),
        sa.Column("firmware", sa.Text),
        sa.Column("rsrp", sa.Double),
        sa.Column("trace", sa.Text),
        sa.Column("applied", sa.Boolean, nullable=False),
        sa.Column("delivered", sa.Double, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("run_ended", "run", ["ended", "id"])
    op.create_index("run_station", "run", ["station", "ended"])
    op.create_table(
        "audit",
        sa.Column("id", id_type, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        *texts("station", "slot", "run"),
        sa.Column("credential", sa.BigInteger),
        *texts("product_key", "device_key", "imei", "iccid", "from_state", "to_state"),
        sa.Column("fence", sa.BigInteger),
        *texts("firmware"),
        sa.Column("rsrp", sa.Double),
        *texts("trace", "why"),
    )
    op.create_index("audit_device", "audit", ["device_key", "id"])
    op.create_table(
        "station",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("seen", sa.Double, nullable=False),
        sa.Column("view", sa.Text, nullable=False),
        sa.Column("slots", sa.Text, nullable=False),
    )
    op.create_table(
        "vault",
        sa.Column("one", sa.Integer, primary_key=True),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("check_value", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("one = 1", name="vault_one"),
    )


RULES = {  # of credential, on UPDATE: what is forbidden
    "the keys of an identity never change": (
        "NEW.id <> OLD.id OR NEW.product_key <> OLD.product_key OR NEW.device_key <> OLD.device_key"
    ),
    "a fence never goes back": "NEW.fence < OLD.fence",
    "a claim raises the fence": (
        "NEW.fence = OLD.fence AND NEW.state = 'claimed'"
        " AND (OLD.state <> 'claimed' OR NEW.imei <> OLD.imei OR NEW.run <> OLD.run)"
    ),
    "an identity is claimed before it is given": (
        "OLD.state = 'free' AND NEW.state IN ('bound', 'proven', 'failed')"
    ),
    "an identity that was given stays with its IMEI": (
        f"OLD.state IN {GIVEN} AND (NEW.state IN ('free', 'claimed')"
        " OR COALESCE(NEW.imei, '') <> COALESCE(OLD.imei, ''))"
    ),
    "an identity is given to the IMEI that claimed it": (
        f"OLD.state = 'claimed' AND NEW.state IN {GIVEN} AND NEW.imei <> OLD.imei"
    ),
    "an identity that was returned stays returned": (
        "OLD.state = 'returned' AND NEW.state <> 'returned'"
    ),
}


def _sqlite_triggers() -> None:
    for table in ("audit", "run"):
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table} BEGIN "
                f"SELECT RAISE(ABORT, 'nbiot: rows of {table} are never changed or removed'); END"
            )
    for number, (why, wrong) in enumerate(RULES.items(), start=1):
        op.execute(
            f"CREATE TRIGGER credential_rule_{number} BEFORE UPDATE ON credential WHEN {wrong} "
            f"BEGIN SELECT RAISE(ABORT, 'nbiot: {why}'); END"
        )
    op.execute(
        "CREATE TRIGGER credential_no_delete BEFORE DELETE ON credential "
        "WHEN OLD.state <> 'free' OR OLD.fence > 0 "
        "BEGIN SELECT RAISE(ABORT, 'nbiot: an identity that was ever claimed stays'); END"
    )


def _postgresql_triggers() -> None:
    op.execute(
        "CREATE FUNCTION nbiot_never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'nbiot: rows of % are never changed or removed', TG_TABLE_NAME; END $$"
    )
    for table, what in (
        ("audit", "UPDATE OR DELETE OR TRUNCATE"),
        ("run", "UPDATE OR DELETE OR TRUNCATE"),
        ("credential", "TRUNCATE"),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_never BEFORE {what} ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION nbiot_never()"
        )
    rules = " ".join(
        f"IF {wrong} THEN RAISE EXCEPTION 'nbiot: {why}'; END IF;" for why, wrong in RULES.items()
    )
    op.execute(
        "CREATE FUNCTION nbiot_credential_rules() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {rules} RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER credential_rules BEFORE UPDATE ON credential "
        "FOR EACH ROW EXECUTE FUNCTION nbiot_credential_rules()"
    )
    op.execute(
        "CREATE FUNCTION nbiot_credential_stays() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF OLD.state <> 'free' OR OLD.fence > 0 THEN "
        "RAISE EXCEPTION 'nbiot: an identity that was ever claimed stays'; END IF; "
        "RETURN OLD; END $$"
    )
    op.execute(
        "CREATE TRIGGER credential_stays BEFORE DELETE ON credential "
        "FOR EACH ROW EXECUTE FUNCTION nbiot_credential_stays()"
    )
