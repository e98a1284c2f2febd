-- Functions of lastcall and its applications: what anybody may call, and definers that a caller's search path can mislead.
select jsonb_build_object(
    'public', coalesce(jsonb_agg(p.oid::regprocedure::text order by p.oid::regprocedure::text)
        filter (where p.prorettype <> 'trigger'::regtype and exists (
            select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            where a.grantee = 0 and a.privilege_type = 'EXECUTE')), '[]'),
    'unpinned', coalesce(jsonb_agg(p.oid::regprocedure::text order by p.oid::regprocedure::text)
        filter (where p.prosecdef and not exists (
            select from unnest(p.proconfig) setting where setting = 'search_path=pg_catalog, pg_temp')), '[]')
)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname = any(%(schemas)s)
