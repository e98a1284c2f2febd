-- The roles of lastcall: what they are, and what they may become.
select coalesce(jsonb_object_agg(r.rolname, jsonb_build_object(
    'login', r.rolcanlogin, 'inherit', r.rolinherit, 'replication', r.rolreplication,
    'powers', array_remove(array[
        case when r.rolsuper then 'SUPERUSER' end,
        case when r.rolbypassrls then 'BYPASSRLS' end,
        case when r.rolcreaterole then 'CREATEROLE' end,
        case when r.rolcreatedb then 'CREATEDB' end], null),
    'member_of', array(
        select g.rolname from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid order by 1)
)), '{}')
from pg_roles r
where r.rolname = any(%(roles)s)
