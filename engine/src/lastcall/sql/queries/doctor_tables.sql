-- Tables and sequences of lastcall and its applications: row-level security, and to whom anything is granted.
with relation as (
    select c.oid, c.oid::regclass::text as name, c.relkind, c.relrowsecurity, c.relowner, c.relacl
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p', 'S', 'm', 'f')
), given as (
    select relation.oid, a.grantee
    from relation cross join lateral aclexplode(relation.relacl) a
    union
    select t.attrelid, a.grantee
    from pg_attribute t join relation on relation.oid = t.attrelid cross join lateral aclexplode(t.attacl) a
)
select jsonb_build_object(
    'open', coalesce(jsonb_agg(relation.name order by relation.name)
        filter (where relation.relkind in ('r', 'p') and not relation.relrowsecurity), '[]'),
    'granted', coalesce((
        select jsonb_agg(line order by line)
        from (
            select distinct relation.name || ' to ' || coalesce(r.rolname, 'PUBLIC') as line
            from given join relation using (oid) left join pg_roles r on r.oid = given.grantee
            where given.grantee <> relation.relowner) lines), '[]')
)
from relation
