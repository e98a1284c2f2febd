-- Functions, views, triggers and policies of these schemas, each with the place of its row in the catalogue: a `create or
-- replace` moves the row, so what a file touched is what is in the set only afterwards.
with place as (
    select oid from pg_namespace where nspname = any(%(schemas)s)
), found (class, object, version) as (
    select 'pg_proc'::regclass, p.oid, p.ctid from pg_proc p join place on place.oid = p.pronamespace
    union all
    select 'pg_class'::regclass, c.oid, c.ctid from pg_class c join place on place.oid = c.relnamespace
    where c.relkind in ('v', 'm')
    union all
    select 'pg_trigger'::regclass, t.oid, t.ctid
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join place on place.oid = c.relnamespace
    where not t.tgisinternal
    union all
    select 'pg_policy'::regclass, y.oid, y.ctid
    from pg_policy y join pg_class c on c.oid = y.polrelid join place on place.oid = c.relnamespace
)
select identity.type || ' ' || identity.identity, found.version::text
from found cross join lateral pg_identify_object(found.class, found.object, 0) identity
