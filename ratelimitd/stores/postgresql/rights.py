"""What PostgreSQL says of the rights of the daemon's account, without trying them."""

from ratelimitd.stores import Names
from ratelimitd.stores.shared.rights import RIGHTS, grants
from ratelimitd.stores.shared.session import Session

_LACKING = """
SELECT format('%I.%I', "nspname", "relname"), array_to_string(ARRAY(
    SELECT kind FROM unnest($2::text[]) WITH ORDINALITY AS rights (kind, place)
    WHERE NOT has_table_privilege(t."oid", kind) AND CASE kind WHEN 'DELETE' THEN TRUE ELSE EXISTS (
        SELECT FROM "pg_attribute" WHERE "attrelid" = t."oid" AND "attnum" > 0 AND NOT "attisdropped"
        AND NOT has_column_privilege(t."oid", "attnum", kind)) END ORDER BY place), ', ')
FROM unnest($1::text[]) WITH ORDINALITY AS wanted (name, place)
JOIN "pg_class" AS t ON t."oid" = to_regclass(quote_ident(name)) JOIN "pg_namespace" AS n ON n."oid" = "relnamespace"
ORDER BY wanted.place
"""
_ACCOUNT = "SELECT quote_ident(current_user), quote_ident(current_schema()), current_setting('search_path')"


async def lacking(session: Session, names: Names) -> str:
    """The statements that give the account what it lacks on the tables that are there; "": it lacks nothing."""
    ((account, _, _),) = await session.run(_ACCOUNT)
    found = await session.run(_LACKING, (list(names.tables), list(RIGHTS)))
    return grants(((str(table), str(rights)) for table, rights in found), account)


async def remedy(session: Session) -> str:
    """What an administrator must do where the account may not create a table."""
    ((account, schema, path),) = await session.run(_ACCOUNT)
    if schema is None:
        return f"there is no schema of its search_path, {path}, that it may use"
    granted = f"GRANT {', '.join(RIGHTS)} ON ALL TABLES IN SCHEMA {schema} TO {account}"
    return (
        f"an administrator must run: GRANT CREATE ON SCHEMA {schema} TO {account}; "
        f"or sql/postgresql.sql in this database, and then: {granted}"
    )
