"""What migrations keep tenants apart with: roles, forced row-level security, and functions that may look further.

    from service.db.row_security import isolate

    def upgrade() -> None:
        op.execute("CREATE TABLE notes (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, …)")
        isolate("notes")

A table that belongs to no tenant is opened by `grant`. What is done here is part of migrations that have run: a
change of mind is a new function.
"""

import asyncpg
from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from service.db.tenancy import API, WORKER

ALL = "SELECT, INSERT, UPDATE, DELETE"

ROLES_MISSING = """
The database needs two roles that its user {user} may not make. Have an administrator run, once:

  CREATE ROLE callboard_api NOLOGIN;
  CREATE ROLE callboard_worker NOLOGIN;
  GRANT callboard_api, callboard_worker TO "{user}";
"""

MAKE_ROLE = "CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS"
MAY_SET = "SELECT pg_has_role(current_user, '{role}', '{privilege}')"
# Without INHERIT the user that migrates gets no policy of the roles: it fails closed until it acts as one of them.
JOIN = "GRANT {role} TO current_user{options}"

TENANTS = """
CREATE OR REPLACE FUNCTION app_tenants() RETURNS uuid[] STABLE PARALLEL SAFE LANGUAGE sql
RETURN nullif(current_setting('app.tenants', true), '')::uuid[]
"""


class RolesMissing(RuntimeError):
    """The database's user may not make the roles; the message says what an administrator has to run."""


def make_roles() -> None:
    """Make the roles where they are missing, and let the user that migrates act as them. Raises RolesMissing.

    Roles belong to the server: another database of it may have made them already.
    """
    connection = op.get_bind()
    number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    privilege, options = ("SET", " WITH INHERIT FALSE") if number >= 160000 else ("MEMBER", "")
    for role in (API, WORKER):
        if not connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).all():
            _administer(MAKE_ROLE.format(role=role))
        if not connection.execute(text(MAY_SET.format(role=role, privilege=privilege))).scalar():
            _administer(JOIN.format(role=role, options=options))
    op.execute(f"GRANT USAGE ON SCHEMA {_schema()} TO {API}, {WORKER}")
    op.execute(TENANTS)


def isolate(table: str, column: str = "tenant_id") -> None:
    """Let the API see and write only the rows of `table` whose tenant, in `column`, it acts for; workers all."""
    _force(table)
    # as a sub-select it is read once for each statement, not once for each row
    owned = f"{column} = ANY ((SELECT app_tenants())::uuid[])"
    op.execute(f"CREATE POLICY tenant ON {table} TO {API} USING ({owned}) WITH CHECK ({owned})")
    grant(table, ALL)


def isolate_below(table: str, visible: str, *, insert: str = "") -> None:
    """As `isolate`, for a table without a tenant: a row is seen where `visible` holds, such as that of its parent.

    `insert`: what holds for a new row instead, where its parent comes after it.
    """
    _force(table)
    op.execute(f"CREATE POLICY tenant ON {table} TO {API} USING ({visible}) WITH CHECK ({insert or visible})")
    grant(table, ALL)


def grant(table: str, api: str = "", worker: str = ALL) -> None:
    """Give the roles rights on a table: SQL's words by commas, such as `SELECT, INSERT`; none for an empty string."""
    for role, rights in ((API, api), (WORKER, worker)):
        if rights:
            op.execute(f"GRANT {rights} ON {table} TO {role}")


def sees_all(function: str) -> None:
    """Have a function, named with its argument types, run as the worker whoever calls it: it looks past one tenant.

    For what the API has to know of everybody, such as how many messages wait: give it the narrowest answer.
    """
    schema = _schema()
    op.execute(f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path = {schema}, pg_temp")
    op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {API}, {WORKER}")
    op.execute(f"GRANT CREATE ON SCHEMA {schema} TO {WORKER}")  # an owner must have it, at this moment only
    op.execute(f"ALTER FUNCTION {function} OWNER TO {WORKER}")
    op.execute(f"REVOKE CREATE ON SCHEMA {schema} FROM {WORKER}")


def replace_seeing_all(function: str, statement: str) -> None:
    """Replace a function that `sees_all`, named with its argument types, by `statement`, a CREATE OR REPLACE.

    Processes of the version before call the new one: it must return the same columns.
    """
    schema = _schema()
    op.execute(f"GRANT CREATE ON SCHEMA {schema} TO {WORKER}")
    as_worker(statement)
    as_worker(f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path = {schema}, pg_temp")
    op.execute(f"REVOKE CREATE ON SCHEMA {schema} FROM {WORKER}")


def as_worker(statement: str) -> None:
    """Execute a statement on rows of every tenant; an owner who is no superuser sees and changes none of its own."""
    op.execute(f"SET LOCAL ROLE {WORKER}")
    op.execute(statement)
    op.execute("RESET ROLE")


def _force(table: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY every_tenant ON {table} TO {WORKER} USING (true) WITH CHECK (true)")


def _schema() -> str:
    return str(op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one())


def _administer(statement: str) -> None:
    connection = op.get_bind()
    user = connection.execute(text("SELECT current_user")).scalar_one()
    try:
        with connection.begin_nested():
            connection.execute(text(statement))
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        if isinstance(cause, asyncpg.InsufficientPrivilegeError):
            raise RolesMissing(ROLES_MISSING.format(user=user)) from None
        if not isinstance(cause, asyncpg.DuplicateObjectError | asyncpg.UniqueViolationError):
            raise
