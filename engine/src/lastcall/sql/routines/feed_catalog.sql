create or replace function lastcall.feed_catalog(slot text, tables text[]) returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
with recursive publication as (
    select p.oid, to_jsonb(p) as facts from pg_publication p where p.pubname = feed_catalog.slot
), named as (
    select n.nspname || '.' || c.relname as name, c.oid, c.relkind, c.relpersistence, c.relreplident, c.relispartition
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname || '.' || c.relname = any (feed_catalog.tables)
), columns as (
    select a.attrelid, a.attnum, a.attname, a.atttypid, a.attgenerated
    from pg_attribute a join named t on t.oid = a.attrelid
    where a.attnum > 0 and not a.attisdropped
), indexes as (
    select i.indrelid, i.indisprimary, i.indimmediate, i.indisreplident and i.indisvalid as identifies,
        (select jsonb_agg(a.attname order by k.place)
         from unnest(i.indkey::smallint[]) with ordinality k (attnum, place)
         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
         where k.place <= i.indnkeyatts) as names
    from pg_index i join named t on t.oid = i.indrelid
    where i.indisprimary or i.indisreplident
), types as (
    select t.oid, t.typname, t.typtype, t.typcategory, t.typelem, t.typbasetype
    from pg_type t where t.oid in (select atttypid from columns)
    union
    select t.oid, t.typname, t.typtype, t.typcategory, t.typelem, t.typbasetype
    from types s join pg_type t on t.oid in (s.typelem, s.typbasetype)
)
select jsonb_build_object(
    'version', current_setting('server_version_num')::integer,
    'publication', (select facts from publication),
    'tables', coalesce((
        select jsonb_agg(jsonb_build_object(
            'name', t.name, 'oid', t.oid::bigint, 'kind', t.relkind, 'persistence', t.relpersistence,
            'identity', t.relreplident,
            'children', exists (select from pg_inherits h where h.inhparent = t.oid),
            'published', m.prpubid is not null,
            'narrowed', coalesce((to_jsonb(m) ->> 'prqual') is not null or (to_jsonb(m) ->> 'prattrs') is not null, false),
            'key', coalesce((select names from indexes i where i.indrelid = t.oid and i.indisprimary), '[]'),
            'identity_columns', case t.relreplident
                when 'd' then coalesce(
                    (select names from indexes i where i.indrelid = t.oid and i.indisprimary and i.indimmediate), '[]')
                when 'i' then coalesce((select names from indexes i where i.indrelid = t.oid and i.identifies), '[]')
                when 'f' then (select jsonb_agg(attname) from columns c where c.attrelid = t.oid)
                else '[]' end,
            'columns', coalesce((
                select jsonb_agg(jsonb_build_object(
                    'name', c.attname, 'type', c.atttypid::bigint, 'type_name', format_type(c.atttypid, null),
                    'generated', c.attgenerated) order by c.attnum)
                from columns c where c.attrelid = t.oid), '[]')) order by t.name)
        from named t left join publication p on true
        left join pg_publication_rel m on m.prrelid = t.oid and m.prpubid = p.oid), '[]'),
    'types', coalesce((
        select jsonb_agg(jsonb_build_object(
            'oid', t.oid::bigint, 'name', t.typname, 'kind', t.typtype, 'base', t.typbasetype::bigint,
            'element', case when t.typcategory = 'A' then t.typelem::bigint else 0 end,
            'extension', coalesce((
                select e.extname from pg_depend d join pg_extension e on e.oid = d.refobjid
                where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
                    and d.refclassid = 'pg_extension'::regclass), '')) order by t.oid)
        from types t), '[]'))
$$;
comment on function lastcall.feed_catalog(text, text[]) is
    'The publication, and of each table named: its identity, columns and types, as far as the feed depends on them.';
grant execute on function lastcall.feed_catalog(text, text[]) to lastcall_replication;
