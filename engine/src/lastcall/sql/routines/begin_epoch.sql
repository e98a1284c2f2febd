-- The row is written before the slot is made, its consistent point after: whatever dies in between, the next start finds
-- no slot (and begins again) or an epoch that nobody has seen yet.
create or replace function lastcall.begin_epoch(epoch text, system_identifier text, timeline integer, slot text, kinds jsonb)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from lastcall.epoch e where e.slot = begin_epoch.slot;
    insert into lastcall.epoch (epoch, system_identifier, timeline, slot, consistent_point)
    values (begin_epoch.epoch, begin_epoch.system_identifier, begin_epoch.timeline, begin_epoch.slot, '0/0');
    insert into lastcall.watched (slot, kinds, publication, birth) values (
        begin_epoch.slot,
        begin_epoch.kinds,
        (select p.oid from pg_publication p where p.pubname = begin_epoch.slot),
        lastcall.cluster_birth())
    on conflict on constraint watched_pkey do update set
        kinds = excluded.kinds, publication = excluded.publication, birth = excluded.birth,
        unsettled = '{}', altered_xid = null;
end
$$;
comment on function lastcall.begin_epoch(text, text, integer, text, jsonb) is
    'Begin a new life of the stream: positions of earlier ones are void.';
grant execute on function lastcall.begin_epoch(text, text, integer, text, jsonb) to lastcall_replication;
