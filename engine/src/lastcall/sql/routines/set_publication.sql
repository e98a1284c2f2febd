-- Alters by what differs, never drops: the walsender looks the publication up as it was when a change was made.
create or replace function lastcall.set_publication(slot text, tables jsonb) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    publication pg_publication;
    settings text := 'publish = ''insert, update, delete, truncate'', publish_via_partition_root = false';
    wanted regclass[];
    present regclass[];
    touched text[];
    list text;
begin
    select coalesce(array_agg(format('%I.%I', n.nspname, c.relname)::regclass), '{}') into wanted
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname || '.' || c.relname in (select key from jsonb_each(set_publication.tables))
        or c.oid in ('lastcall.published'::regclass, 'lastcall.path'::regclass);
    select string_agg(format('only %s', t), ', ') into list from unnest(wanted) t;
    if current_setting('server_version_num')::integer >= 180000 then
        settings := settings || ', publish_generated_columns = stored';
    end if;
    select * into publication from pg_publication p where p.pubname = set_publication.slot;
    if not found then
        execute format('create publication %I for table %s with (%s)', set_publication.slot, list, settings);
        -- A slot that is older than its publication may have skipped changes in silence.
        delete from lastcall.epoch e where e.slot = set_publication.slot;
        touched := array(select key from jsonb_each(set_publication.tables));
    else
        select coalesce(array_agg(m.prrelid::regclass) filter (where to_jsonb(m) ->> 'prqual' is null and to_jsonb(m) ->> 'prattrs' is null), '{}')
        into present from pg_publication_rel m where m.prpubid = publication.oid;
        if not (present @> wanted and wanted @> present) then
            execute format('alter publication %I set table %s', set_publication.slot, list);
        end if;
        if not (publication.pubinsert and publication.pubupdate and publication.pubdelete and publication.pubtruncate
            and not publication.pubviaroot and coalesce(to_jsonb(publication) ->> 'pubgencols', 's') = 's')
        then
            execute format('alter publication %I set (%s)', set_publication.slot, settings);
            present := '{}';
        end if;
        touched := array(
            select e.key from jsonb_each(set_publication.tables) e
            where not exists (
                select from unnest(present) p join pg_class c on c.oid = p join pg_namespace n on n.oid = c.relnamespace
                where n.nspname || '.' || c.relname = e.key));
        if present @> wanted and wanted @> present then
            return false;
        end if;
    end if;
    insert into lastcall.watched (slot, altered_xid) values (set_publication.slot, pg_current_xact_id())
    on conflict on constraint watched_pkey do update set
        altered_xid = excluded.altered_xid,
        kinds = watched.kinds - array(
            select jsonb_array_elements_text(set_publication.tables -> t) from unnest(touched) t);
    return true;
end
$$;
comment on function lastcall.set_publication(text, jsonb) is
    'Publish exactly these tables (table → kinds of channel it feeds) and what the engine needs; true when that was a change. For the owner only.';
