-- Routines of these schemas, the file that made each, and the function by which its language checks it.
select r.name, p.oid, l.lanvalidator::regproc::text
from pg_proc p
join pg_language l on l.oid = p.prolang
join pg_namespace n on n.oid = p.pronamespace
cross join lateral pg_identify_object('pg_proc'::regclass, p.oid, 0) o
left join lastcall.routine r on r.source = %(source)s and o.type || ' ' || o.identity = any(r.objects)
where n.nspname = any(%(schemas)s) and l.lanvalidator <> 0
order by 1, 2
