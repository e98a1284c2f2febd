-- after: emit
create or replace function lastcall.mark_watches(slot text, kinds jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    known lastcall.watched;
    settled boolean;
    due text[];
begin
    select * into known from lastcall.watched w where w.slot = mark_watches.slot;
    if found and known.kinds = mark_watches.kinds then
        -- Nothing to write: a node must start where the database takes no writes.
        settled := known.altered_xid is null or pg_snapshot_xmin(pg_current_snapshot()) > known.altered_xid;
        if known.unsettled = '{}' or not settled then
            return jsonb_build_object('reset', '[]'::jsonb, 'settled', known.unsettled = '{}');
        end if;
    end if;
    insert into lastcall.watched (slot) values (mark_watches.slot) on conflict do nothing;
    select * into strict known from lastcall.watched w where w.slot = mark_watches.slot for update;
    settled := known.altered_xid is null or pg_snapshot_xmin(pg_current_snapshot()) > known.altered_xid;
    select coalesce(array_agg(key order by key), '{}') into due
    from jsonb_each_text(mark_watches.kinds) where known.kinds ->> key is distinct from value;
    update lastcall.watched w set
        kinds = mark_watches.kinds,
        unsettled = case when settled then '{}' else known.unsettled || due end
    where w.slot = mark_watches.slot;
    if settled then
        due := due || known.unsettled;
    end if;
    select coalesce(array_agg(distinct kind order by kind), '{}') into due from unnest(due) kind;
    if due <> '{}' then
        perform lastcall.emit('lastcall.reset', jsonb_build_object('kinds', due, 'reason', 'schema'));
    end if;
    return jsonb_build_object('reset', due, 'settled', settled);
end
$$;
comment on function lastcall.mark_watches(text, jsonb) is
    'Put a reset of every kind of channel whose watches have changed into the stream; once more when the change has settled.';
grant execute on function lastcall.mark_watches(text, jsonb) to lastcall_replication;
