-- Who may write a message into the log, beside the owner of lastcall and superusers.
select coalesce(jsonb_agg(distinct coalesce(r.rolname, 'PUBLIC')), '[]')
from pg_proc p
cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
left join pg_roles r on r.oid = a.grantee
where p.proname = 'pg_logical_emit_message' and p.pronamespace = 'pg_catalog'::regnamespace
    and a.privilege_type = 'EXECUTE'
    and not coalesce(r.rolsuper, false) and coalesce(r.rolname, '') <> current_user
